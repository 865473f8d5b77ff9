"""The model in use: the pipeline, recognition, refinement, sweeps."""
