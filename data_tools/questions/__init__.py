"""Questions about images: built from samples, or read from published files."""
