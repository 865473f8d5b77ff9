"""Checkpoints of a run: their files, saving and loading."""
