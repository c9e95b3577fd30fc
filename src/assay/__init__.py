"""assay: ablation studies of PyTorch models that finish, can be repeated anywhere, and can be believed."""

__version__ = "0.1.0"
