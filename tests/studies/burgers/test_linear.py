"""The linear baseline: exact where the evolution is linear, the same for all patches, beaten where it is not."""

import pytest
import torch

from assay.studies.burgers.equation import cell_centres, frame_times
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.linear import fit, linear
from assay.studies.burgers.metrics import nrmse_frame
from assay.studies.burgers.solver import solve

CELLS, TOKENS = 32, 8


def advected(count: int, frames: int, cells: int = 1) -> torch.Tensor:
    """Noise that moves by some cells per frame, to the right, (count, frames, cells)."""
    u0 = torch.randn(count, CELLS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.stack([u0.roll(cells * frame, -1) for frame in range(frames)], dim=1)


@pytest.mark.parametrize("cells", [1, -1], ids=["to the right", "to the left"])
@pytest.mark.parametrize("stride", [1, 3])
def test_what_moves_by_less_than_a_patch_is_predicted_exactly(stride, cells):
    predict = linear(fit(advected(20, 5, cells), TOKENS, stride))
    u = advected(3, 13, cells)[:, ::stride]
    torch.testing.assert_close(predict(u[:, 0], 0.01, u.shape[1] - 1), u)


def test_what_moves_further_than_the_neighbours_is_not():
    u = advected(20, 7)
    predict = linear(fit(u, TOKENS, 6))
    assert nrmse_frame(predict(u[:, 0], 0.01, 1)[:, 1:], u[:, 6:]) > 0.2


def test_fields_too_smooth_to_tell_all_directions_apart_give_a_map_that_stays_bounded():
    u0 = initial_conditions(0, range(24)).sample(cell_centres(CELLS))
    u = solve(u0, frame_times(21, 0.05), 0.5, "spectral")
    rolled = linear(fit(u[:16], TOKENS, 1))(u[16:, 0], 0.5, 20)
    assert rolled.isfinite().all() and rolled.abs().max() < 2 * u.abs().max()
    still = u[16:, :1].expand(-1, 20, -1)
    assert nrmse_frame(rolled[:, 1:], u[16:, 1:]) < 0.5 * nrmse_frame(still, u[16:, 1:])
