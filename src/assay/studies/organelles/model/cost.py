"""What a network costs: parameters, floating-point operations, memory of a training step; open it for what is counted.

Steps are taken by tensors without content (torch's FakeTensor), so the largest network is measured on any computer in
seconds. Memory is the largest sum of the storages alive at one time: weights, gradients, AdamW's two moments,
activations, and what operations need beside them as tensors. Workspaces inside of kernels and the allocator's gaps
are not seen.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the bytes of all storages that operations touch while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return out

    def note(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, once."""
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        taken = storage.nbytes()
        self._known[storage] = taken
        self.now += taken
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, taken)

    def _drop(self, taken: int) -> None:
        self.now -= taken


def parameters(model: nn.Module) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def operations(make: Callable[[], nn.Module], edges: Sequence[int]) -> int:
    """Floating-point operations (2 per multiplication and addition) of a forward pass of one sample."""
    mode = FakeTensorMode()
    model = without_content(make(), mode).eval()
    with mode, torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 1, *edges))
    return int(counter.get_total_flops())


class Memory:
    """Bytes of a training step with AdamW by batch size: each size is measured once, when it is asked for."""

    def __init__(self, make: Callable[[], nn.Module], edges: Sequence[int], bf16: bool) -> None:
        self.bf16, self.edges = bf16, tuple(edges)
        self.mode = FakeTensorMode()
        self.model = without_content(make(), self.mode)
        self._known: dict[int, int] = {}

    def of(self, samples: int) -> int:
        """Bytes with a batch of so many samples."""
        if samples not in self._known:
            self._known[samples] = self._peak((samples, 1, *self.edges))
        return self._known[samples]

    def largest_batch(self, available: float) -> int:
        """The most samples that fit into `available` bytes; 0 if not even one does.

        Memory grows by ever the same or more from sample to sample, so that a line through two sizes that fit reaches
        the answer or goes beyond it.
        """
        if self.of(1) > available:
            return 0
        fits, beyond = 1, 2
        while self.of(beyond) <= available:
            slope = (self.of(beyond) - self.of(fits)) / (beyond - fits)
            reach = int((available - self.of(beyond)) / slope) if slope > 0 else beyond
            fits, beyond = beyond, beyond + max(1, min(reach, 8 * beyond))
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            fits, beyond = (middle, beyond) if self.of(middle) <= available else (fits, middle)
        return fits

    def _peak(self, shape: Sequence[int]) -> int:
        model = self.model.train()
        with self.mode:
            trained = [each for each in model.parameters() if each.requires_grad]
            moments = [torch.empty_like(each) for each in trained for _ in range(2)]
            with _Alive() as alive:
                for tensor in (*model.parameters(), *model.buffers(), *moments):
                    alive.note(tensor)
                with torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext():
                    logits = model(torch.empty(shape)).float()
                objective(logits).backward()  # type: ignore[no-untyped-call]
            for parameter in trained:
                parameter.grad = None
        return int(alive.peak)


def objective(logits: Tensor) -> Tensor:
    """As many tensors of the logits' shape as the study's loss holds: target, mask, probabilities, their products."""
    target = torch.empty_like(logits)
    known = ~target.isnan()
    wanted, found = target.nan_to_num() * known, logits.sigmoid() * known
    axes = (0, *range(2, logits.dim()))
    both = (wanted * found).sum(axes)
    return (1 - both / (both + 0.6 * (found - wanted * found).sum(axes) + 0.4 * wanted.sum(axes))).mean()


def without_content(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The module itself, its parameters and buffers replaced by tensors that have a shape only."""
    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            empty = nn.Parameter(mode.from_tensor(parameter.detach()), requires_grad=parameter.requires_grad)
            setattr(layer, name, empty)
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(layer, name, mode.from_tensor(buffer))
    return model
