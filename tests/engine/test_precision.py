"""Number formats: networks and losses run in the short one, data and scores do not."""

import pytest
import torch
from tests.engine.conftest import run

from assay.engine.task import Evaluation


def short() -> bool:
    return torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("size", "asked"), [(1, 1), (2, 3)])
def test_only_the_network_and_the_loss_run_in_the_short_format(size, asked, make_task, make_config, tmp_path):
    class Watching(make_task):
        def batches(self, cursor):
            for batch in super().batches(cursor):
                assert not short()
                yield batch

        def loss(self, model, batch, rng):
            seen.append((short(), model(batch[0]).dtype))
            return super().loss(model, batch, rng)

        def evaluate(self, model):
            assert not short()
            found = model(self.x[:, None])
            assert found.dtype is torch.float32 and torch.equal(found, found.bfloat16().float())
            return Evaluation({"loss": float(found.square().mean())})

    seen: list[tuple[bool, torch.dtype]] = []
    run(Watching(), make_config(precision="bf16", ensemble_size=size), tmp_path)
    on, formats = zip(*seen[asked:], strict=True)  # the first ask which parameters a term reaches, and if it can stack
    assert all(on) and (size > 1 or set(formats) == {torch.bfloat16})  # vmap takes linear layers out of autocast


def test_data_that_products_make_are_the_same_in_every_format(make_task, make_config, tmp_path):
    class Mixing(make_task):
        def batches(self, cursor):
            for x, y in super().batches(cursor):
                made.append(torch.cat([x, y], dim=1) @ torch.linspace(0, 1, 9).reshape(3, 3))
                yield x, y

    made: list[torch.Tensor] = []
    run(Mixing(), make_config(precision="fp32"), tmp_path / "fp32")
    exact, made = made, []
    run(Mixing(), make_config(precision="bf16"), tmp_path / "bf16")
    assert len(exact) == len(made) and all(map(torch.equal, exact, made))
