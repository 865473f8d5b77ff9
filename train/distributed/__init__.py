"""Ranks, DeepSpeed engines, averages of weights."""
