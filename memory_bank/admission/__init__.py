"""Admission: gates, thresholds, replacement, the stopping rule, replay."""
