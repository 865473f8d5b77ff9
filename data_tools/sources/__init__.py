"""Importers of published datasets."""
