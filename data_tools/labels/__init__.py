"""Emotion votes of samples, and valence and arousal drawn from word norms."""
