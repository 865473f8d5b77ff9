"""Reinforce: reinforcement learning of the generator from judges of its images."""
