"""Reinforcement learning: advantages, policy losses, rollouts, scorers."""
