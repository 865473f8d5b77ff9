"""Reinforce: RL of the generator from judges of its images."""
