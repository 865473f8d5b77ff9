"""Metrics and reports. Run from the checkout: `python -m eval`."""
