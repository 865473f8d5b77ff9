"""Pictures from outside: which formats are read, and how they become 8-bit sRGB pixels."""
