"""What a study's runs say about its registered hypotheses, and whether they may say it."""
