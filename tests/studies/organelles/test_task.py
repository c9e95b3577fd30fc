"""What the engine is given: batches by cursor and rank, a loss with its buffers, validation, exact resuming."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tests.studies.organelles.conftest import SLOTS

from assay.config import resolved
from assay.engine.checkpoint import CHECKPOINTS, read_tensors
from assay.engine.distributed import Group
from assay.engine.verify import verify_command
from assay.errors import ConfigError
from assay.studies.organelles import simulate
from assay.studies.organelles.cache import open_crops
from assay.studies.organelles.splits import read_split
from assay.studies.organelles.task import OrganelleTask

CPU = torch.device("cpu")
RUNNING = ["loss.prior=running", "loss.prior_momentum=0.9", "loss.prior_every=1"]


def make_task(params, group=None):
    if not Path("data").exists():
        simulate.run(params)
    crops = open_crops(params.data)
    return OrganelleTask(params, crops, read_split(Path(params.data.path), crops.names), group or Group.alone())


def test_a_batch_is_a_function_of_seed_and_cursor(make_params):
    task = make_task(make_params())
    batches = task.batches(0)
    first, second = next(batches), next(batches)
    again = next(task.batches(1))
    assert torch.equal(second[0], again[0])
    assert torch.equal(second[1].nan_to_num(2), again[1].nan_to_num(2))
    assert not torch.equal(first[0], second[0])
    other = next(make_task(make_params("seed=1")).batches(0))
    assert not torch.equal(first[0], other[0])


def test_ranks_get_different_patches_and_augmentation(make_params):
    params = make_params()
    images = [next(make_task(params, Group(rank, 2, CPU, rank)).batches(0))[0] for rank in (0, 1)]
    assert not torch.equal(*images)


def test_a_batch_is_its_number_of_patches_and_ranks_change_the_same_patches_in_their_own_ways(make_params):
    ranks = [make_task(make_params(), Group(rank, 2, CPU, rank)) for rank in (0, 1)]
    raw = ranks[0].patches.batch(0)
    ways = [task._prepared(raw, 0) for task in ranks]
    assert torch.equal(next(ranks[0].batches(0))[0], ways[0][0])
    assert not torch.equal(ways[0][0], ways[1][0])
    later = ranks[0].batches(5)
    for number in (5, 6, 7, 8):
        expected = ranks[0]._prepared(ranks[0].patches.batch(number), number)
        assert torch.equal(next(later)[0], expected[0])


def test_the_ranks_patches_are_those_of_one_process_with_the_whole_batch(make_params):
    params = make_params("train.batch_size=4")
    whole = make_task(params).patches.batch(3)
    halves = [make_task(params, Group(rank, 2, CPU, rank)).patches.batch(3) for rank in (0, 1)]
    assert torch.equal(whole.image, torch.cat([half.image for half in halves]))


def test_training_and_validation_have_their_own_crops(make_params):
    params = make_params("sampling.crops=uniform")
    task = make_task(params)
    crops = open_crops(params.data)
    train, validation = task.split.train, task.split.validation
    assert len(train) == 4 and len(validation) == 2 and not set(train) & set(validation)
    assert {task.patches.order.at(sample) for sample in range(200)} == set(train)
    assert [crop.name for crop in task.validation] == [crops.names[number] for number in validation]
    for own, expected in zip(task.frequencies, crops.frequencies(train), strict=True):
        assert torch.equal(own, expected)
    assert task.samples_per_epoch == 4 * 16 * 64 * 64 / (32 * 32)


def test_every_view_of_the_labels_is_watched_by_the_annotated_ones(make_params):
    scores = []
    for view in ("masked", "absent", "full"):
        task = make_task(make_params("loss.adjust=none", f"data.annotation={view}"))
        torch.manual_seed(0)
        model = task.build().eval()
        with torch.no_grad():
            scores.append(task.evaluate(model).metrics)
    assert scores[0] == scores[1] == scores[2]


def test_a_softmax_has_one_kind_of_logits_that_decide(make_params):
    built = make_task(make_params("loss.adjust=none", "loss.tversky=0", "loss.marginal=1")).build()
    logits = torch.randn(2, 14, 4, 4)
    assert torch.equal(built.deciding(logits, "adjusted"), built.deciding(logits, "raw"))
    assert not torch.equal(built.deciding(logits, "raw"), logits)


def test_validation_repeats_and_names_every_class_that_has_a_score(make_params):
    task = make_task(make_params())
    torch.manual_seed(0)
    model = task.build().eval()
    with torch.no_grad():
        first, again = task.evaluate(model).metrics, task.evaluate(model).metrics
    assert first == again and task.monitor.metric in first
    assert 14 >= sum(name.startswith("dice_by_class/") for name in first) >= first["classes"] > 0
    assert sum(name.startswith("adjustment/") for name in first) == 14


def test_the_loss_is_what_the_module_gives_with_a_target(make_params):
    task = make_task(make_params("loss.bce=0.2"))
    model = task.build()
    terms = task.loss(model, next(task.batches(0)), torch.Generator())
    assert terms.keys() == task.weights.keys() == {"tversky", "bce"}
    assert all(term.requires_grad for term in terms.values())


def test_a_running_prior_is_part_of_the_networks_state(make_params):
    task = make_task(make_params(*RUNNING))
    model = task.build().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "prior" in name}
    assert before
    task.loss(model, next(task.batches(0)), torch.Generator())
    after = model.state_dict()
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_running_prior_rests_in_validation_but_not_as_published(make_params):
    published = ["loss.adjust=subtract", "loss.smooth=0.000001", "loss.prior=running", "loss.prior_momentum=0.99",
                 "loss.prior_every=50"]  # fmt: skip
    for flag, moves in (("false", 0), ("true", 2)):
        task = make_task(make_params(*published, f"loss.as_published={flag}"))
        model = task.build().eval()
        with torch.no_grad():
            task.evaluate(model)
        assert int(model.objective.tversky.prior.calls) == moves


def test_the_published_loss_is_refused_to_several_processes(make_params):
    published = ["loss.adjust=subtract", "loss.smooth=0.000001", "loss.prior=running", "loss.prior_momentum=0.99",
                 "loss.prior_every=50", "loss.as_published=true"]  # fmt: skip
    with pytest.raises(ConfigError, match=r"loss\.as_published: got true with 2 processes; allowed: false"):
        make_task(make_params(*published), Group(0, 2, CPU, 0))


def test_a_head_that_begins_at_the_prior_predicts_the_class_shares(make_params):
    task = make_task(make_params("model.prior_bias=true"))
    shares = task.frequencies.shares
    model = task.build()
    bias = model.network.final_conv.bias
    torch.testing.assert_close(bias.detach().sigmoid(), shares, rtol=1e-3, atol=1e-6)


@pytest.mark.pipeline
@pytest.mark.parametrize("slot", [*SLOTS, "running prior"])
def test_training_repeats_and_goes_on_bit_for_bit(slot, make_params):
    own = [*RUNNING, "train.accumulate=2"] if slot == "running prior" else SLOTS[slot]
    params = make_params(*own)
    simulate.run(params)
    Path("params.yaml").write_text(yaml.safe_dump(resolved(params)))
    command = [sys.executable, "-m", "assay", "stage", "organelles", "train", "--params", "params.yaml"]
    report = verify_command(command, 4, 0)
    assert report.identical, report


PLAIN = [*(f"augmentation.{key}={value}" for key, value in
           {"flip": "false", "transpose": "false", "contrast": 0, "gamma": 0, "noise": 0}.items()),
         "train.optimizer.name=sgd", "train.optimizer.betas=null", "train.optimizer.momentum=0",
         "train.optimizer.weight_decay=0", "train.optimizer.lr=1", "train.schedule.name=constant",
         "train.schedule.warmup_fraction=null", "train.schedule.initial_division=null",
         "train.schedule.final_division=null", "train.clip_norm=null", "train.steps=1", "train.batch_size=4",
         "train.checkpoint_every=1", "train.validate_every=1"]  # fmt: skip


def weights_after_a_step(processes: int) -> dict[str, torch.Tensor]:
    """Of a training in so many processes."""
    place = Path(f"by-{processes}")
    command = [sys.executable, "-m", "assay", "stage", "organelles", "train", "--processes", str(processes)]
    subprocess.run(
        [*command, "--params", "params.yaml"], env={**os.environ, CHECKPOINTS: str(place)}, check=True, timeout=300
    )
    (path,) = place.glob("*/step-000000001.safetensors")
    return {name: each for name, each in read_tensors(path)[0].items() if name.startswith("model/network")}


@pytest.mark.slow
def test_two_processes_take_the_step_of_one_with_the_whole_batch(make_params):
    """With a rate of 1 and no momentum the step is the gradient; without augmentation, which differs by process."""
    params = make_params(*PLAIN, "loss.bce=0.2")
    simulate.run(params)
    Path("params.yaml").write_text(yaml.safe_dump(resolved(params)))
    one, two = weights_after_a_step(1), weights_after_a_step(2)
    fresh = make_task(params)
    torch.manual_seed(0)
    assert one.keys() == {f"model/network.{name}" for name in fresh.build().network.state_dict()}
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-5)
