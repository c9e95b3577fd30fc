"""What the corrector's process promises: it samples the distribution it learnt, and a student keeps it in one call."""

import pytest
import torch
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.studies.burgers.diffusion import (
    Errors,
    Velocity,
    distillation_loss,
    draw_times,
    flow_loss,
    integrate,
    time_grid,
    to_data,
)
from assay.studies.burgers.model import Corrector, CorrectorOptions

MEAN, SPREAD, SCALE = 1.5, 0.4, 0.2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_like(fields: Tensor, seed: int = 9) -> Tensor:
    return torch.randn(fields.shape, generator=seeded(seed))


def exact_velocity(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
    """E[r - noise | x_s] for r ~ N(MEAN, SPREAD^2), in closed form."""
    s = s[:, None]
    variance = (1 - s) ** 2 + (s * SPREAD) ** 2
    return MEAN + (s * SPREAD**2 - (1 - s)) / variance * (x - s * MEAN)


def exact_student(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
    """The velocity that carries x straight to where the exact flow ends."""
    s = s[:, None]
    end = MEAN + SPREAD * (x - s * MEAN) / ((1 - s) ** 2 + (s * SPREAD) ** 2).sqrt()
    return (end - x) / (1 - s).clamp_min(1e-6)


def zero(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
    return torch.zeros_like(x)


def normal_errors(count: int = 512, cells: int = 4) -> Errors:
    """Errors of MEAN +- SPREAD times SCALE around a prediction."""
    predicted = torch.randn(count, cells, generator=seeded(1))
    residual = MEAN + SPREAD * torch.randn(count, cells, generator=seeded(2))
    return Errors(
        start=torch.zeros_like(predicted), predicted=predicted, truth=predicted + SCALE * residual, scale=SCALE
    )


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_the_sampler_draws_from_the_distribution_of_the_errors(method):
    errors = normal_errors(4096)
    noise = noise_like(errors.predicted, 0)
    drawn = integrate(exact_velocity, noise, errors.predicted, errors.start, steps=64, method=method)
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(SPREAD, rel=0.03)


def test_heun_steps_are_of_second_order_and_euler_steps_of_first():
    """The end point is known; halving the step divides the error by 4 or 2."""
    x = torch.randn(64, 4, generator=seeded(), dtype=torch.float64)
    exact = MEAN + SPREAD * x
    for method, order in (("euler", 1), ("heun", 2)):
        error = [
            float((integrate(exact_velocity, x, x, x, steps=n, method=method) - exact).abs().max()) for n in (64, 128)
        ]
        assert error[0] / error[1] == pytest.approx(2**order, rel=0.1)


def test_the_loss_of_the_true_velocity_is_below_that_of_any_other():
    errors = normal_errors()
    best = flow_loss(exact_velocity, errors, seeded())
    for wrong in (zero, lambda *inputs: 0.9 * exact_velocity(*inputs), lambda *inputs: exact_velocity(*inputs) + 0.2):
        assert flow_loss(wrong, errors, seeded()) > best


def test_the_loss_of_the_zero_map_is_one_plus_the_mean_square_of_the_error():
    loss = flow_loss(zero, normal_errors(4096), seeded())
    assert float(loss) == pytest.approx(1 + MEAN**2 + SPREAD**2, rel=0.03)


@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
def test_times_lie_between_noise_and_data_and_one_kind_favours_the_middle(times):
    s = draw_times(torch.zeros(4000, 1), seeded(), times)
    assert (s > 0).all() and (s < 1).all()
    middle = float(((s > 0.25) & (s < 0.75)).float().mean())
    assert middle == pytest.approx(0.5 if times == "uniform" else 0.728, abs=0.03)


def test_a_student_returns_data_unchanged():
    x = torch.randn(3, 4)
    assert torch.equal(to_data(lambda *inputs: torch.randn(3, 4), x, torch.ones(3), x, x), x)


def test_the_distillation_loss_vanishes_for_the_student_that_jumps_to_the_end_of_the_flow():
    errors = normal_errors()
    losses = [
        float(distillation_loss(exact_student, exact_student, exact_velocity, errors, steps, seeded()))
        for steps in (16, 64)
    ]
    assert losses[1] < losses[0] < 1e-4


def test_the_distillation_loss_is_not_lowered_by_shrinking_the_student_to_zero():
    errors = normal_errors()
    kept = distillation_loss(exact_student, exact_student, exact_velocity, errors, 16, seeded())
    for factor in (0.0, 0.5, 0.9):

        def shrunk(*inputs: Tensor, factor: float = factor) -> Tensor:
            return factor * exact_student(*inputs)

        assert distillation_loss(shrunk, shrunk, exact_velocity, errors, 16, seeded()) > 10 * kept


def test_no_gradient_reaches_teacher_or_target():
    networks = [nn.Linear(4, 4) for _ in range(3)]
    student, target, teacher = (lambda x, s, p, u, net=net: net(x) for net in networks)
    distillation_loss(student, target, teacher, normal_errors(), 8, seeded()).backward()
    assert [net.weight.grad is not None for net in networks] == [True, False, False]


def one_call(student: Velocity, errors: Errors) -> Tensor:
    """The errors that a student makes of noise."""
    noise = noise_like(errors.predicted)
    return to_data(student, noise, noise.new_zeros(len(noise)), errors.predicted, errors.start)


def test_a_perfect_student_draws_from_the_same_distribution_in_one_call():
    drawn = one_call(exact_student, normal_errors(4096))
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(SPREAD, rel=0.03)


def test_no_steps_are_refused():
    with pytest.raises(ConfigError, match="steps: got 0; allowed: >= 1"):
        time_grid(0)


def trained(network: Corrector, loss, steps: int) -> Corrector:
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss(network, step).backward()
        optimizer.step()
    return network


@pytest.fixture(scope="module")
def teacher_and_student() -> tuple[Corrector, Corrector]:
    """A corrector of errors with a shape in space that depends on the prediction, and its distilled copy."""
    options = CorrectorOptions(
        cells=16, tokens=4, hidden_dim=32, depth=1, heads=2, attention="standard", mean=0.0, std=1.0
    )
    torch.manual_seed(0)
    teacher = trained(Corrector(options), lambda net, step: flow_loss(net, shaped(128, step), seeded(step)), 250)
    student = Corrector(options)
    student.load_state_dict(teacher.state_dict())

    def distil(net: Corrector, step: int) -> Tensor:
        return distillation_loss(net, net, teacher, shaped(128, step), 8, seeded(step))

    return teacher, trained(student, distil, 150)


def shaped(count: int, seed: int) -> Errors:
    """Errors that are the prediction's slope, give or take a tenth."""
    rng = seeded(1000 + seed)
    x = (torch.arange(16) + 0.5) / 16
    predicted = torch.sin(2 * torch.pi * (x + torch.rand(count, 1, generator=rng)))
    residual = predicted.roll(-2, -1) + 0.1 * torch.randn(count, 16, generator=rng)
    return Errors(start=predicted, predicted=predicted, truth=predicted + SCALE * residual, scale=SCALE)


def test_a_trained_corrector_lowers_the_error_of_the_prediction(teacher_and_student):
    errors = shaped(256, -1)
    teacher, _ = teacher_and_student
    assert rms(corrected(teacher, errors, 8) - errors.truth) < 0.5 * rms(errors.predicted - errors.truth)


def test_the_distilled_student_is_not_zero_and_one_call_is_close_to_the_teachers_eight_steps(teacher_and_student):
    errors = shaped(256, -1)
    teacher, student = teacher_and_student
    with torch.no_grad():
        drawn = one_call(student, errors)
    assert rms(drawn) > 0.5 * rms(errors.residual)
    assert rms(errors.predicted + SCALE * drawn - errors.truth) < 1.5 * rms(
        corrected(teacher, errors, 8) - errors.truth
    )


def test_every_tensor_of_a_corrector_gets_a_gradient_from_both_losses(teacher_and_student):
    teacher, student = teacher_and_student
    errors = shaped(8, -1)
    for network, loss in (
        (teacher, flow_loss(teacher, errors, seeded())),
        (student, distillation_loss(student, student, teacher, errors, 8, seeded())),
    ):
        network.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def corrected(network: Corrector, errors: Errors, steps: int) -> Tensor:
    with torch.no_grad():
        drawn = integrate(
            network, noise_like(errors.predicted), errors.predicted, errors.start, steps=steps, method="heun"
        )
    return errors.predicted + SCALE * drawn


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
