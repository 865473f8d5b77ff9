"""Datasets: importers, manifests, questions, and AffectWorld, a synthetic dataset."""
