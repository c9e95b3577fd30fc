"""Arms, seeds and what they amount to; nothing here imports torch or a study's models."""
