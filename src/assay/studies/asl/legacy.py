"""Defects of the published study, reproduced so that its numbers can be explained; nothing else imports these scores.

Open it to see why a win rate of 97 % and a sensitivity ratio of 80 meant nothing.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from assay.engine.random import generator
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.estimators import LEAST_SQUARES
from assay.studies.asl.heldout import HeldOut
from assay.studies.asl.model import StandardisedModel
from assay.studies.asl.model.outputs import global_scale
from assay.studies.asl.pairing import every, voxels
from assay.studies.asl.physics import joint_signal, reference_signal
from assay.studies.asl.trained import Maps, TrainedModel

STRIDE = 10  # least squares was run at every tenth voxel
SCALES = (0.1, 1.0, 10.0)
THRESHOLD = 5.0  # ratio above which a network was called sensitive
EDGE = 64
UNIFORM_CBF = (10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 150.0)
UNIFORM_ATT = 1500.0
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)
REPEATS = 5
MARGIN = 8  # pixels
UNIFORM_SNR = 10.0
CLAMP = (0.0, 300.0)
SLOPE, R2 = 0.3, 0.8  # above both, a network was called sensitive


def mispaired(phantoms: HeldOut, maps: Mapping[str, Maps]) -> dict[str, object]:
    """The published comparison: estimates of every tenth voxel against the truth of the first voxels in a row.

    `least_squares` are its published scores, `perfect` those of the truth itself under this pairing, and
    `win_rate` how often each correctly paired estimate "beats" the mis-paired one: least squares beats itself.
    """
    document: dict[str, object] = {}
    wins: dict[str, dict[str, float]] = {name: {} for name in maps}
    for quantity in ("cbf", "att"):
        truth = voxels(getattr(phantoms.clean, quantity), phantoms.number, phantoms.mask)
        tables = {
            name: voxels(getattr(each, quantity), phantoms.number, phantoms.mask).value for name, each in maps.items()
        }
        tenth = every(truth._replace(value=tables[LEAST_SQUARES]), STRIDE).value
        first = truth.value[: len(tenth)]
        error = tenth - first
        document[f"least_squares_{quantity}"] = _scores(error)
        document[f"perfect_{quantity}"] = _scores(every(truth, STRIDE).value - first)
        for name, values in tables.items():
            own = values[: len(tenth)] - first
            wins[name][quantity] = float((own.abs() < error.abs()).double().mean())
    return {"voxels": len(tenth), **document, "win_rate": wins}


def _scores(error: Tensor) -> dict[str, float]:
    return {
        "mae": float(error.abs().mean()),
        "rmse": float(error.square().mean().sqrt()),
        "bias": float(error.mean()),
    }


def published_sensitivity(params: Params, trained: TrainedModel, nulls: Sequence[TrainedModel]) -> dict[str, object]:
    """Both published tests on the trained network and, as they never were, on untrained ones."""
    channels = 2 * len(params.physics.plds)
    return {
        "noise_ratio": {
            "threshold": THRESHOLD,
            "trained": amplitude_ratio(trained.modules[0], channels),
            "untrained": {str(k): amplitude_ratio(null.modules[0], channels) for k, null in enumerate(nulls)},
        },
        "uniform_phantoms": {
            "trained": uniform_test(params, trained),
            "untrained": {str(k): uniform_test(params, null) for k, null in enumerate(nulls)},
        },
    }


@torch.no_grad()
def amplitude_ratio(module: nn.Module, channels: int) -> float:
    """|m(10)| / |m(0.1)|, m(s) the mean CBF output for s times weak white noise; above 5 was called sensitive.

    The noise is the published one, seed 42. It goes in as normalised input, and the output is the z-score, where the
    model has these; a model without z-scores is given and gives physical units.
    """
    device = next(module.parameters()).device
    x = 0.1 * torch.randn(4, channels, EDGE, EDGE, generator=torch.Generator().manual_seed(42))
    means = [abs(float(_cbf_output(module, (scale * x).to(device)).mean())) for scale in SCALES]
    return means[-1] / max(means[0], 1e-9)


def _cbf_output(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, StandardisedModel):
        maps: Tensor = module.network(x)
        return maps[:, :1]
    unit = float(1.0 / global_scale(torch.ones(1)))
    cbf: Tensor = module(x * unit, x.new_full((len(x), 1, 1, 1), 0.1 * unit)).cbf
    return cbf


def uniform_test(params: Params, model: TrainedModel) -> dict[str, float | bool]:
    """The second published test: mean CBF of uniform phantoms (ATT 1500 ms, Rician noise on the difference, SNR 10).

    Line of the estimate on the true CBF, called sensitive if its slope exceeds 0.3 and its R2 0.8; and the estimate of
    a phantom of CBF 60 at double over that at half its signal, 4 for a proportional one.
    """
    levels = torch.tensor(UNIFORM_CBF, dtype=torch.float64)
    clean = [_uniform_signal(params, cbf) for cbf in UNIFORM_CBF]
    estimates = _interior_means(params, model, torch.cat(clean))
    slope, r2 = _line(levels, estimates)
    scaled = _interior_means(params, model, torch.cat([_uniform_signal(params, 60.0) * f for f in FACTORS]))
    ratio = float(scaled[-1] / scaled[0])
    return {"slope": slope, "r2": r2, "sensitive": slope > SLOPE and r2 > R2, "ratio_2_over_half": ratio}


def _uniform_signal(params: Params, cbf: float) -> Tensor:
    maps = torch.ones(1, EDGE, EDGE)
    return joint_signal(cbf * maps, UNIFORM_ATT * maps, params.physics.plds, nominal_physics(params))


@torch.no_grad()
def _interior_means(params: Params, model: TrainedModel, clean: Tensor) -> Tensor:
    """Mean CBF (L,) away from the border over repeats, of signals (L, 2P, H, W)."""
    sigma = (reference_signal(nominal_physics(params)) / UNIFORM_SNR).float()
    random = generator("uniform phantoms")
    device = next(model.modules[0].parameters()).device
    means = []
    for _ in range(REPEATS):
        noise = torch.randn((2, *clean.shape), generator=random) * sigma
        noisy = torch.hypot(clean + noise[0], noise[1]).to(device)
        sd = sigma.to(device).expand(len(clean), 1, 1, 1)
        cbf = torch.stack([module(noisy, sd).cbf for module in model.modules]).clamp(*CLAMP)
        means.append(cbf[..., MARGIN:-MARGIN, MARGIN:-MARGIN].double().mean((0, 2, 3, 4)).cpu())
    return torch.stack(means).mean(0)


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and R2 of the least-squares line."""
    dx, dy = x - x.mean(), y - y.mean()
    return float(dx @ dy / (dx @ dx)), float((dx @ dy) ** 2 / ((dx @ dx) * (dy @ dy)))
