"""Metrics and reports. Run from the checkout."""
