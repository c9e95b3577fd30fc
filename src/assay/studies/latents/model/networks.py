"""Multi-layer perceptrons: layers in a row, or with linear projections of the input at every layer; open it to add one.

Weights start as those of torch.nn.Linear do: uniform in +-1 / sqrt(inputs), biases too.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
Kind = Literal["plain", "skip"]


class Plain(nn.Module):
    """Blocks of linear layer, batch norm if wanted, activation; then a linear layer. (B, inputs) to (B, outputs)."""

    def __init__(
        self, inputs: int, outputs: int, hidden: tuple[int, ...], activation: str | None, batch_norm: bool
    ) -> None:
        super().__init__()
        widths = (inputs, *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden) if batch_norm else None
        self.last = nn.Linear(widths[-1], outputs)
        self.activation = ACTIVATIONS[activation] if activation else None

    def forward(self, x: Tensor) -> Tensor:
        """Of each row."""
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            if self.norms is not None:
                x = self.norms[index](x)
            if self.activation is not None:
                x = self.activation(x)
        return self._out(x)

    def _out(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x)
        return out


class Skip(nn.Module):
    """Layers that also see the input u: y_k = act(W_k [y_k-1; P_k u + c_k] + b_k), out = W [y_n; P u + c] + b.

    y_0 is u itself. All products with u are one: rows of `entry` are P_1 .. P_n, P and the part of W_1 that meets u.
    u is the widest thing there is, and one wide product is faster than several narrow ones.
    """

    def __init__(self, inputs: int, outputs: int, hidden: tuple[int, ...], activation: str) -> None:
        super().__init__()
        (width,) = set(hidden)
        self.width, self.layers = width, len(hidden)
        self.entry = nn.Linear(inputs, (self.layers + 2) * width)
        self.first = nn.Parameter(torch.empty(width, width))
        self.later = nn.ModuleList(nn.Linear(2 * width, width) for _ in hidden[1:])
        self.last = nn.Linear(2 * width, outputs)
        self.activation = ACTIVATIONS[activation]
        bound = 1 / math.sqrt(inputs + width)  # W_1 has inputs + width columns
        with torch.no_grad():
            self.entry.weight[-width:].uniform_(-bound, bound)
            self.entry.bias[-width:].uniform_(-bound, bound)
            self.first.uniform_(-bound, bound)

    def forward(self, u: Tensor) -> Tensor:
        """Of each row."""
        *projections, beside, direct = self.entry(u).split(self.width, dim=-1)
        y = self.activation(direct + functional.linear(projections[0], self.first))
        for layer, projection in zip(self.later, projections[1:], strict=True):
            y = self.activation(layer(torch.cat([y, projection], dim=-1)))
        out: Tensor = self.last(torch.cat([y, beside], dim=-1))
        return out


def network(  # noqa: PLR0913 - one layer stack: between which widths, of what kind
    inputs: int,
    outputs: int,
    *,
    kind: Kind,
    hidden_layers: int,
    hidden_dim: int | None,
    activation: str | None,
    batch_norm: bool = False,
) -> nn.Module:
    """A perceptron; linear without hidden layers. Only plain ones have batch norm."""
    hidden = (hidden_dim or 0,) * hidden_layers
    if kind == "skip" and activation is not None:
        return Skip(inputs, outputs, hidden, activation)
    return Plain(inputs, outputs, hidden, activation, batch_norm)


def last_layer(module: nn.Module) -> nn.Linear:
    """The layer that gives a perceptron's output."""
    if not isinstance(module, Plain | Skip):
        raise TypeError(f"got a {type(module).__name__}; a perceptron of this study is Plain or Skip")
    return module.last


def l1(module: nn.Module) -> Tensor:
    """Sum over a module's tensors of their mean absolute value: as published, a bias weighs as much as a matrix."""
    return torch.stack([parameter.abs().mean() for parameter in module.parameters()]).sum()
