"""The published latent score: the size that independent work found, and why it says little."""

import pytest
import torch

from assay.studies.burgers.equation import cell_centres, frame_times
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.legacy import draw_encoder, latent_scores
from assay.studies.burgers.metrics import nrmse, nrmse_pooled
from assay.studies.burgers.solver import solve

PUBLISHED = 0.036  # of persistence at nu = 0.01, 128 tokens of 128 channels, frames 0.02 apart
PUBLISHED_RMS = 0.470  # of the latent states


@pytest.fixture(scope="module")
def pairs():
    """Fields 0.02 apart of 96 trajectories to t = 2, (b, starts, 2, cells)."""
    u = solve(initial_conditions(0, range(96)).sample(cell_centres(256)), frame_times(101, 0.02), 0.01, "spectral")
    return torch.stack([u[:, :-1], u[:, 1:]], dim=2)


@pytest.fixture(scope="module")
def persistence(pairs):
    return pairs[:, :, :1].expand_as(pairs)


def test_copying_the_input_scores_as_found_elsewhere_and_the_encoder_decides_how_well(pairs, persistence):
    scores = latent_scores({"persistence": persistence}, pairs, 128, 128)["latent_nrmse"]["persistence"]
    assert scores["mean"] == pytest.approx(PUBLISHED, rel=0.25)
    assert len(set(scores["by_draw"])) == len(scores["by_draw"]) == 8
    assert scores["highest"] > 1.05 * scores["lowest"]
    assert scores["lowest"] <= scores["mean"] <= scores["highest"]


def test_the_score_hides_most_of_the_error_of_the_field(pairs, persistence):
    scores = latent_scores({"persistence": persistence}, pairs, 128, 128)["latent_nrmse"]["persistence"]
    in_field = float(nrmse_pooled(persistence[:, :, 1], pairs[:, :, 1]))
    assert 0.3 < scores["mean"] / in_field < 0.5


def test_latent_states_have_the_published_size(pairs):
    u = pairs[:8, :, 1]
    z = draw_encoder(128, 0).encode((u - pairs.mean()) / pairs.std(), 128)
    assert float(z.square().mean().sqrt()) == pytest.approx(PUBLISHED_RMS, rel=0.1)


def test_the_encoder_is_a_linear_layer_on_every_cell_averaged_to_tokens():
    u, encoder = torch.randn(2, 12, dtype=torch.float64), draw_encoder(5, 0)
    x = cell_centres(12)
    parts = [
        function(2 * torch.pi * wave * y) for y in (x, 0 * x) for wave in (1, 2) for function in (torch.sin, torch.cos)
    ]
    cells = torch.cat([u[..., None], torch.stack(parts, -1).expand(2, -1, -1)], dim=-1)
    latent = torch.nn.functional.linear(cells, encoder.weight, encoder.bias)
    torch.testing.assert_close(encoder.encode(u, 4), latent.view(2, 4, 3, 5).mean(2))
    assert encoder.size(u.view(2, 4, 3).mean(2), 12) == pytest.approx(
        float(latent.view(2, 4, 3, 5).mean(2).square().mean().sqrt())
    )
    assert encoder.weight.abs().max() <= 1 / 3 and encoder.bias.abs().max() <= 1 / 3


def test_a_perfect_prediction_scores_nothing_and_the_draws_are_the_same_every_time(pairs):
    some = pairs[:2]
    given = {"perfect": some, "persistence": some[:, :, :1].expand_as(some)}
    one, again = (latent_scores(given, some, 16, 8, draws=2) for _ in range(2))
    assert one == again and one["tokens"] == 16
    assert one["latent_nrmse"]["perfect"]["highest"] == 0 < one["latent_nrmse"]["persistence"]["lowest"]


def test_the_score_is_the_error_of_the_latent_states(pairs, persistence):
    some, copied = pairs[:3], persistence[:3]
    scores = latent_scores({"persistence": copied}, some, 16, 8, draws=3)["latent_nrmse"]["persistence"]["by_draw"]
    before, after = ((each[:, :, 1] - some.mean()) / some.std() for each in (copied, some))
    encoders = [draw_encoder(8, number) for number in range(3)]
    assert scores == pytest.approx([float(nrmse(e.encode(before, 16), e.encode(after, 16))) for e in encoders])
