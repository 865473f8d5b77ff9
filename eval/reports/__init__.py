"""Reports: comparison tables, curves, pages."""
