"""Batch norm over the batch of all ranks; open it when a network with batch norm trains differently on several GPUs.

torch.nn.SyncBatchNorm does the same on GPUs alone; this one works wherever `distributed.total` does, so that it can be
compared with one process on any computer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.engine.distributed import Group, total


class SharedBatchNorm(_BatchNorm):
    """Ioffe & Szegedy (2015), with the moments of the whole batch: (B, C, ...), B samples on every rank."""

    def __init__(self, like: _BatchNorm, group: Group) -> None:
        """Takes the parameters and buffers of a layer over, not copies of them."""
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats)
        self.group, self.training = group, like.training
        self._parameters, self._buffers = like._parameters, like._buffers

    def _check_input_dim(self, input: Any) -> None:
        """Any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """As torch's, with gradients through the moments."""
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        values = input.float()
        sums = torch.cat([values.sum(axes), values.new_full((1,), values.numel() / values.shape[1])])
        *_, count = pooled = total(sums, self.group)
        mean = pooled[:-1] / count
        shape = [1, -1, *[1] * (input.dim() - 2)]
        centred = values - mean.reshape(shape)
        variance = total(centred.square().sum(axes), self.group) / count
        self._remember(mean.detach(), variance.detach(), count.detach())
        normal = centred * (variance + self.eps).rsqrt().reshape(shape)
        if self.affine:
            normal = normal * self.weight.reshape(shape) + self.bias.reshape(shape)
        result: Tensor = normal.to(input.dtype)
        return result

    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Running moments, the variance unbiased, as torch keeps them."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def share_batch_norms(network: nn.Module, group: Group) -> None:
    """Replace every batch norm in a network, in place; names, parameters and buffers stay."""
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            setattr(network, name, SharedBatchNorm(child, group))
        else:
            share_batch_norms(child, group)
