"""The classical baseline: template matching with one reference image per class and no training; open it for how.

The middle of a reference, at several orientations, is correlated with an image at all places; the class whose template
correlates best somewhere wins. After Barker et al. 2024 (ACS Nano 18, 2384), who need one reference image too.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from assay.studies.scanlines.model.lines import normalise

SHARE = 4  # a template has 1/4 of an image's edges
BATCH = 32


def references(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The first image of each class, (K, N, P); a class without one gets zeros, which match nothing."""
    found = torch.zeros(classes, *images.shape[1:])
    for label in range(classes):
        rows = (labels == label).nonzero()[:1, 0]
        found[label : label + len(rows)] = images[rows]
    return found


def templates(reference: Tensor, angles: int) -> Tensor:
    """Middles of references (K, N, P) at `angles` orientations, (K angles, n, p), with mean 0 and norm 1."""
    lines, points = reference.shape[1:]
    turned = []
    for turn in range(angles):
        c, s = math.cos(math.pi * turn / angles), math.sin(math.pi * turn / angles)
        matrix = torch.tensor([[c, -s, 0.0], [s, c, 0.0]]).expand(len(reference), 2, 3)
        grid = functional.affine_grid(matrix, [len(reference), 1, lines, points], align_corners=False)
        turned.append(functional.grid_sample(normalise(reference, "line")[:, None], grid, align_corners=False)[:, 0])
    n, p = lines // SHARE, points // SHARE
    top, left = (lines - n) // 2, (points - p) // 2
    middle = torch.stack(turned, 1).flatten(0, 1)[:, top : top + n, left : left + p]
    centred = middle - middle.mean((1, 2), keepdim=True)
    return centred / centred.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-12)


def matches(images: Tensor, reference: Tensor, angles: int) -> Tensor:
    """Largest correlation coefficient of each class's template in each of (B, N, P) images, (B, K)."""
    wanted = templates(reference, angles)
    size, shape = wanted.shape[1:], images.shape[1:]
    spectrum = torch.fft.rfft2(wanted, s=shape).conj()
    box = torch.fft.rfft2(torch.ones(1, *size), s=shape).conj()
    found = []
    for some in torch.split(normalise(images, "line"), BATCH):
        waves, squares = torch.fft.rfft2(some), torch.fft.rfft2(some.square())
        count = size.numel()
        local = (torch.fft.irfft2(waves * box, s=shape), torch.fft.irfft2(squares * box, s=shape))
        spread = (local[1] - local[0].square() / count).clamp_min(1e-3 * count).sqrt()
        valid = spread[:, : shape[0] - size[0] + 1, : shape[1] - size[1] + 1]
        best = [
            (torch.fft.irfft2(waves * each, s=shape)[:, : valid.shape[1], : valid.shape[2]] / valid).amax((1, 2))
            for each in spectrum
        ]
        found.append(torch.stack(best, 1).view(len(some), len(reference), angles).amax(2))
    return torch.cat(found)
