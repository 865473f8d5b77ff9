"""Admission: gates, bounds, replacement, diversity, replay."""
