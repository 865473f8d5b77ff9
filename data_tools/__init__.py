"""Datasets: importers, manifests, and AffectWorld, the dataset drawn in code."""
