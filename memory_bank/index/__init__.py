"""Nearest neighbours: FAISS indexes, caches that can be rebuilt from the store."""
