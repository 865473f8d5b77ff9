"""The bank's store: records in SQLite, image files named by their SHA-256."""
