"""The model: understander, generator, and what they are made of."""
