"""The parts of `make study-symbiosis`, see `benchmarks.symbiosis_study`."""
