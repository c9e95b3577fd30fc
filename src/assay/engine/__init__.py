"""Training: the contract of a task, the one loop, checkpoints, precision, ensembles; studies plug in here."""
