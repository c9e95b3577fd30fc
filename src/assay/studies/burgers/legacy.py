"""The published latent score, reproduced so that its numbers can be explained; open it to see why they mean little.

It was the error of one step in the latent space of an encoder that is random, never trained, and drawn anew for every
data loader: fields, scaled by mean and standard deviation of the judged data themselves, as 1 x 1 patches with Fourier
features of their place, through a linear layer, averaged to tokens. A token is w ubar + s(x): one direction times a
cell mean, plus what depends on the place alone, which every prediction copies and which stands in the denominator.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.burgers.equation import cell_centres
from assay.studies.burgers.metrics import TINY

DRAWS = 8
TRUTH = "truth"
WAVES = (1, 2)  # per domain, of the Fourier features
INPUTS = 1 + 4 * len(WAVES)  # u, and sine and cosine of both coordinates
BOUND = 1 / math.sqrt(INPUTS)  # of torch's initial weights and biases, here 1 / 3


class RandomEncoder(NamedTuple):
    """A linear layer (d, 9), (d,) as torch initialises it."""

    weight: Tensor
    bias: Tensor

    def encode(self, u: Tensor, tokens: int) -> Tensor:
        """Fields u (..., cells), standardised, to latent states (..., tokens, d).

        Averaging to tokens comes first here: it commutes with the linear layer.
        """
        return averages(u, tokens)[..., None] * self.weight[:, 0] + self.places(u.shape[-1], tokens)

    def places(self, cells: int, tokens: int) -> Tensor:
        """The part of the latent states that is the same for all fields, (tokens, d)."""
        return averages(_features(cells), tokens).T @ self.weight[:, 1:].T + self.bias

    def size(self, average: Tensor, cells: int) -> float:
        """Root mean square of the latent states of fields whose cell means are `average` (n, tokens).

        The square of w ubar + s(x), averaged term by term, for the states themselves need d times the memory.
        """
        w, s = self.weight[:, 0], self.places(cells, average.shape[1])
        mixed = 2 * (average.mean(0) * (s @ w)).mean() / len(w)
        return float((w.square().mean() * average.square().mean() + mixed + s.square().mean()).sqrt())


def draw_encoder(latent_dim: int, number: int) -> RandomEncoder:
    """Encoder `number` of many."""
    rng = generator("random encoder", latent_dim, number)
    drawn = BOUND * (2 * torch.rand(latent_dim, INPUTS + 1, generator=rng, dtype=torch.float64) - 1)
    return RandomEncoder(drawn[:, :-1], drawn[:, -1])


def latent_scores(
    steps: Mapping[str, Tensor], truth: Tensor, tokens: int, latent_dim: int, draws: int = DRAWS
) -> dict[str, object]:
    """The published score of one-step predictions (b, starts, 2, cells) of some estimators, one value per encoder.

    `truth` (b, starts, 2, cells) has the given and the true next field.
    """
    mean, std = truth.double().mean(), truth.double().std()
    average = {
        name: averages(((each[:, :, 1].double() - mean) / std).flatten(0, 1), tokens).cpu()
        for name, each in {TRUTH: truth, **steps}.items()
    }
    encoders = [draw_encoder(latent_dim, number) for number in range(draws)]
    sizes = [encoder.size(average[TRUTH], truth.shape[-1]) for encoder in encoders]
    found = {}
    for name in steps:
        error = float((average[name] - average[TRUTH]).square().mean().sqrt())
        gains = [float(encoder.weight[:, 0].square().mean().sqrt()) for encoder in encoders]
        found[name] = _spread([gain * error / (size + TINY) for gain, size in zip(gains, sizes, strict=True)])
    return {"tokens": tokens, "latent_dim": latent_dim, "latent_nrmse": found}


def _spread(values: list[float]) -> dict[str, object]:
    return {"lowest": min(values), "mean": sum(values) / len(values), "highest": max(values), "by_draw": values}


def _features(cells: int) -> Tensor:
    """Sine and cosine of both coordinates of every cell, (8, cells); y is 0 everywhere."""
    x = cell_centres(cells)
    angles = [2 * math.pi * wave * place for place in (x, 0 * x) for wave in WAVES]
    return torch.stack([function(angle) for angle in angles for function in (torch.sin, torch.cos)])


def averages(values: Tensor, tokens: int) -> Tensor:
    """Adaptive average over cells, (..., cells) to (..., tokens)."""
    flat = torch.nn.functional.adaptive_avg_pool1d(values.reshape(1, -1, values.shape[-1]), tokens)
    return flat.reshape(*values.shape[:-1], tokens)
