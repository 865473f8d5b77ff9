"""Nearest neighbours: FAISS indexes that are rebuilt from the store when needed."""
