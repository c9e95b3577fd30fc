"""The linear baseline: the next fields as a fixed linear map of a patch and its two neighbours; open it for the fit."""

import torch
from torch import Tensor

from assay.studies.burgers.predictors import Predict

BLOCK = 64  # trajectories whose patches are in memory at once
RTOL = 1e-12  # of the largest eigenvalue; directions in which smooth fields hardly vary are left out


def fit(u: Tensor, tokens: int, stride: int) -> Tensor:
    """Least-squares map (3 p, p) to a patch of p cells `stride` frames later, from training fields u (b, k, cells).

    All patches of the periodic domain share it: a convolution in patches.
    """
    patch = u.shape[-1] // tokens
    gram = torch.zeros(3 * patch, 3 * patch, dtype=torch.float64)
    cross = torch.zeros(3 * patch, patch, dtype=torch.float64)
    for part in torch.split(u, BLOCK):
        before = neighbourhoods(part[:, :-stride].double().cpu(), tokens).flatten(0, -2)
        after = part[:, stride:].double().cpu().reshape(-1, patch)
        gram += before.T @ before
        cross += before.T @ after
    weights: Tensor = torch.linalg.pinv(gram, rtol=RTOL, hermitian=True) @ cross
    return weights


def neighbourhoods(u: Tensor, tokens: int) -> Tensor:
    """Each patch of u (..., cells) between the one before and the one after, (..., tokens, 3 p)."""
    patches = u.reshape(*u.shape[:-1], tokens, -1)
    return torch.cat([patches.roll(1, -2), patches, patches.roll(-1, -2)], dim=-1)


def linear(weights: Tensor) -> Predict:
    """Rollouts of a fitted map, in float64."""
    patch = weights.shape[1]

    def predict(start: Tensor, nu: float, steps: int) -> Tensor:
        frames = [start.double()]
        for _ in range(steps):
            seen = neighbourhoods(frames[-1], start.shape[-1] // patch)
            frames.append((seen @ weights.to(start.device)).flatten(-2))
        return torch.stack(frames, dim=1)

    return predict
