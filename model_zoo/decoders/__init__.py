"""Diffusion decoders: denoisers, autoencoders, prompt encoders, schedulers."""
