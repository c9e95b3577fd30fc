"""The Burgers study: latent neural operators judged in field space, with rollouts and classical baselines."""
