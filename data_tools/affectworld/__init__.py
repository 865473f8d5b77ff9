"""AffectWorld: a dataset drawn in code whose valence and arousal can be computed from pixels."""
