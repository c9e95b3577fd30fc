"""Latent dynamics of neural recordings: encoder, evolver and decoder beside linear models and the noise floor."""
