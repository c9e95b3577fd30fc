"""The processes (ranks) that train one network together; open it to see what they share and what each does alone.

A rank is started with torchrun's variables: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
Without them a process is a group of one, and nothing here costs anything.

`train.batch_size` is the batch of all ranks together: each takes `share.of(batch_size)` samples of it, so the same
parameters mean the same training on any number of ranks, but for rounding.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _set_pg_timeout

from assay.engine.config import part_of
from assay.errors import ConfigError, PeerLostError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun gives every process."""
PLACE_IN_GLOO = re.compile(r"^\[\S+\] ")
JOIN_WITHIN = timedelta(minutes=10)
"""How long the ranks wait for one another at the start."""
EXCHANGE_WITHIN = timedelta(days=1)
"""How long they wait in an exchange after that: longer than whatever one of them does meanwhile, as rank 0 validates.

Nothing that goes wrong is found by it. Of a rank that has ended gloo hears at once, by its closed connection. NCCL need
not, but at every step the ranks also exchange a byte by gloo, and whoever started them ends the others (runs/ranks.py).
A rank that hangs is found by the supervisor's watch.
"""


@dataclass(frozen=True)
class Share:
    """Which part of every global batch: `rank` of `world` equal ones."""

    rank: int = 0
    world: int = 1

    def of(self, batch_size: int) -> int:
        """Samples of this part of a batch.

        Raises:
            ConfigError: it cannot be cut into equal parts.
        """
        return part_of(batch_size, self.world)


@dataclass(frozen=True)
class Group:
    """The processes that train together, as one of them sees it. local_rank: its number on its node."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    local_rank: int = 0

    @classmethod
    def alone(cls, device: torch.device | str = "cpu") -> "Group":
        """The group of a process that trains by itself."""
        return cls(device=torch.device(device))

    @property
    def share(self) -> Share:
        """Which part of every global batch is this process's."""
        return Share(self.rank, self.world)

    @property
    def key(self) -> tuple[int, ...]:
        """What this rank adds to a key of random numbers that no two ranks may share; nothing alone."""
        return (self.rank,) if self.world > 1 else ()

    @property
    def leads(self) -> bool:
        """Whether this process writes, logs and evaluates: rank 0."""
        return self.rank == 0


def join(device: Literal["auto", "cpu", "cuda"] = "auto") -> Group:
    """The group that this process was started in: gloo between CPUs, NCCL between GPUs. Joined once, kept for good.

    Raises:
        ConfigError: a variable of torchrun's is missing or wrong, or there is no GPU for this process.
        PeerLostError: the others have not come within JOIN_WITHIN.
    """
    return _joined(device)


@lru_cache(maxsize=1)
def _joined(wanted: Literal["auto", "cpu", "cuda"]) -> Group:
    from assay.engine.precision import pick_device

    device = pick_device(wanted)
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return Group.alone(device)
    rank, world, local = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if not 0 <= rank < world:
        raise ConfigError(f"RANK: got {rank}; allowed: 0 to WORLD_SIZE - 1 = {world - 1}; start the ranks by torchrun")
    if world == 1:
        return Group.alone(device)
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise ConfigError(f"rank {rank}: got GPU {local} of {found}; start as many processes as there are GPUs")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    group = Group(rank, world, device, local)
    with together(group):
        dist.init_process_group(backend, rank=rank, world_size=world, timeout=JOIN_WITHIN)
    _set_pg_timeout(EXCHANGE_WITHIN)  # given to init_process_group, it would be that of the joining as well
    return group


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        given = value or "nothing"
        raise ConfigError(f"{name}: got {given}; allowed: a whole number; set all of {', '.join(VARIABLES)}, or none")
    return int(value)


def total(tensor: Tensor, group: Group) -> Tensor:
    """The sum of `tensor` over the ranks, on every rank; the tensor itself alone.

    Differentiable: with gradients averaged over the ranks, a loss that every rank computes from totals has the
    gradient of that loss over the whole batch.
    """
    if group.world == 1:
        return tensor
    summed: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


class _Total(torch.autograd.Function):
    """Sum over the ranks; its adjoint is the same sum."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return _sum(tensor)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _sum(gradients[0])


def _sum(tensor: Tensor) -> Tensor:
    summed = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def any_rank(asks: bool, group: Group) -> bool:
    """Whether any rank asks; every rank gets the same answer. Between CPUs: a GPU is not waited for."""
    if group.world == 1:
        return asks
    heard = torch.tensor(asks, dtype=torch.uint8)
    dist.all_reduce(heard, dist.ReduceOp.MAX)
    return bool(heard)


def averaged(terms: Mapping[str, Tensor], group: Group) -> dict[str, float]:
    """The mean of each term over members and ranks; waits for the device."""
    if group.world == 1:
        return {name: float(term.mean()) for name, term in terms.items()}
    means = _sum(torch.stack([term.mean() for term in terms.values()])) / group.world
    return dict(zip(terms, means.tolist(), strict=True))


def from_leader(value: Any, group: Group) -> Any:
    """A JSON value of rank 0's on every rank; the others wait for it."""
    if group.world == 1:
        return value
    text = json.dumps(value).encode() if group.leads else b""
    size = torch.tensor(len(text))
    dist.broadcast(size, src=0)
    told = torch.frombuffer(bytearray(text or bytes(int(size))), dtype=torch.uint8)
    dist.broadcast(told, src=0)
    return json.loads(told.numpy().tobytes())


def gathered(tensor: Tensor, group: Group) -> Sequence[Tensor]:
    """A CPU tensor of every rank, in the order of ranks; shapes must be equal."""
    if group.world == 1:
        return [tensor]
    parts = [torch.empty_like(tensor) for _ in range(group.world)]
    dist.all_gather(parts, tensor)
    return parts


@contextmanager
def together(group: Group) -> Iterator[None]:
    """Context of everything that ranks do together.

    Raises:
        PeerLostError: an exchange failed, as it does when another rank has ended.
    """
    try:
        yield
    except RuntimeError as error:  # also of autograd, and gloo has no class of its own
        if group.world > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            reason = PLACE_IN_GLOO.sub("", str(error)).partition(". ")[0]
            raise PeerLostError(f"rank {group.rank}: another rank has ended, or did not answer ({reason})") from None
        raise


def refuse_unjoined() -> None:
    """Raise ConfigError if this process is one of several that were started to train together, and has not joined."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1" and not dist.is_initialized():
        given = f"train: got {world} processes (WORLD_SIZE)"
        raise ConfigError(f"{given}; allowed: 1, as this study does not share out its batches; start it once")
