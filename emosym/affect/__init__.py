"""Affect: scales, taxonomies of emotion, norms of emotion words, similarity and ranking."""
