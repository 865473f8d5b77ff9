"""What a run measures: sizes, scores before, during and after training, the report."""
