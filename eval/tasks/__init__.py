"""Evaluation of understanding: tasks, labels, valence and arousal."""
