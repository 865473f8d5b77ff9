"""Diffusion: processes, sampling trajectories, stochastic transitions, DiffusionNFT."""
