"""Benchmarks and studies. They run from the checkout and are not installed."""
