"""Benches and studies; run from the checkout, never installed."""
