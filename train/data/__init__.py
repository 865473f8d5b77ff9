"""The data of a run: samples, questions, text features, the memory bank."""
