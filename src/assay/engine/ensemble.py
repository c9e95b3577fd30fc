"""One network, or K of one shape trained in one pass; open it when a member differs from its lone run.

K members are stacked along a new first dimension of every tensor and run by `torch.func.vmap`. They see the same
batches and differ in their initial weights, frozen ones too. One member is not stacked: it costs nothing. Buffers may
be changed in place (batch norm), but not replaced. Several processes may share the training of a lone network.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from assay.engine.distributed import Group
from assay.engine.task import Batch, Model, Task
from assay.errors import ConfigError


class Ensemble:
    """K >= 1 networks of one architecture. Tensors of `state()` have a leading dimension K."""

    def __init__(self, members: list[nn.Module]) -> None:
        self.size = len(members)
        self.module = members[0]
        self.shared: DistributedDataParallel | None = None
        self.buffers: dict[str, Tensor] = {}
        self.parameters: dict[str, nn.Parameter] = {
            name: tensor for name, tensor in self.module.named_parameters() if tensor.requires_grad
        }
        if self.size > 1:
            stacked, self.buffers = stack_module_state(members)
            self.parameters = {name: nn.Parameter(stacked.pop(name).detach().clone()) for name in self.parameters}
            self.buffers |= stacked  # what is left is frozen
        self.sources = _sources(self.module)

    def loss(self, task: Task[Batch], batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Unweighted loss terms, each (K,)."""
        if self.size == 1:
            network = self.shared or self.module
            return {name: term.reshape(1) for name, term in task.loss(network, batch, rng).items()}

        def lone(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
            return task.loss(_bind(self.module, {**parameters, **buffers}), batch, rng)

        with self._attention():
            terms: dict[str, Tensor] = vmap(lone, randomness="same")(dict(self.parameters), self.buffers)
        return terms

    def _attention(self) -> AbstractContextManager[None]:
        """Plain attention on a CPU, whose fused kernel cannot be stacked."""
        on_cpu = next(iter(self.parameters.values())).device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()

    def refuse_unstackable(self, task: Task[Batch], batch: Batch, rng: torch.Generator) -> None:
        """Raise ConfigError if torch cannot run these networks as one, or would lose what they keep in buffers."""
        named = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        places = Counter(tensor.untyped_storage().data_ptr() for tensor in named.values() if tensor.numel())
        shared = [name for name, tensor in named.items() if places[tensor.untyped_storage().data_ptr()] > 1]
        if shared:
            raise ConfigError(f"train: {' and '.join(shared)} share memory; allowed in a stack: tensors of their own")
        kept = {name: tensor.detach().clone() for name, tensor in named.items()}
        given = dict(kept)
        with torch.random.fork_rng(), torch.no_grad():
            try:
                task.loss(_bind(self.module, given), batch, rng)  # torch puts what is replaced into the mapping
                self.loss(task, batch, rng)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(f"train: these networks cannot be stacked ({reason}); train them alone") from error
        replaced = [name for name, tensor in given.items() if tensor is not kept[name]]
        if replaced:
            allowed = "allowed in a stack: to change it in place"
            raise ConfigError(f"train: {replaced[0]} is replaced by the network; {allowed}")

    def everything(self) -> dict[str, Tensor]:
        """Every tensor of the networks, those too that are not kept in files."""
        if self.size > 1:
            return {name: tensor.detach() for name, tensor in {**self.parameters, **self.buffers}.items()}
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def share(self, group: Group) -> None:
        """From now on a backward pass ends with the mean gradient over the ranks; nothing where there is one.

        Buffers are not exchanged: what fills them while training uses totals, see `distributed.total`.
        """
        if group.world > 1:
            devices = [group.device] if group.device.type == "cuda" else None
            self.shared = DistributedDataParallel(
                self.module, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
            )

    def exchange(self, now: bool) -> AbstractContextManager[None]:
        """Context of a forward and backward pass whose gradients are exchanged `now`, or with those of a later one."""
        return nullcontext() if now or self.shared is None else self.shared.no_sync()

    def clip(self, max_norm: float) -> Tensor:
        """Scale each member's gradient to a 2-norm of at most `max_norm`; returns the norms before, (K,)."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        if self.size == 1:
            norm: Tensor = nn.utils.clip_grad_norm_(list(self.parameters.values()), max_norm)
            return norm.reshape(1)
        norms: Tensor = torch.stack([g.reshape(self.size, -1).norm(dim=1) for g in gradients]).norm(dim=0)
        factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.reshape(-1, *[1] * (gradient.dim() - 1)))
        return norms

    def state(self) -> dict[str, Tensor]:
        """Every parameter and kept buffer, each (K, ...), sharing memory with the networks."""
        if self.size > 1:
            tensors = {**self.parameters, **self.buffers}
            return {name: tensors[source].detach() for name, source in self.sources.items()}
        return {name: tensor.detach().unsqueeze(0) for name, tensor in self.module.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy a `state()` back in; names and shapes must be the same."""
        own = self.state()
        if own.keys() != state.keys():
            raise KeyError(f"tensors differ: {sorted(own.keys() ^ state.keys())[:3]}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def member(self, index: int, state: Mapping[str, Tensor] | None = None) -> Model:
        """Member `index` as a callable, with the ensemble's own weights or those of `state`."""
        source = self.state() if state is None else state
        return _bind(self.module, {name: tensor[index] for name, tensor in source.items()}, every_name=True)


def _sources(module: nn.Module) -> dict[str, str]:
    """Every name in the module's state -> the first name of that tensor, which is another where weights are tied."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in module.state_dict(keep_vars=True).items()}


def _bind(module: nn.Module, tensors: dict[str, Tensor], every_name: bool = False) -> Callable[..., Any]:
    """The module with these tensors; unless tied ones are given under every name, they follow the one that is given."""

    def call(*inputs: Any) -> Any:
        return functional_call(module, tensors, inputs, tie_weights=not every_name)

    return call
