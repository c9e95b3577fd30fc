"""assay: ablation studies of PyTorch models that finish, can be repeated anywhere, and can be believed."""

from importlib.metadata import version

__version__ = version("assay")
