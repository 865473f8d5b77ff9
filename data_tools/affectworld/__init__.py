"""AffectWorld: a dataset drawn in code, with valence and arousal computed from the pixels."""
