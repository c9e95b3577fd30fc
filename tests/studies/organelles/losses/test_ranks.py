"""Two processes with half of a batch each have the loss and the gradient of one with all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.studies.organelles.conftest import PARAMS, TINY
from tests.studies.organelles.losses.conftest import COUNT, draw_batch

from assay.config import load
from assay.engine.distributed import Group
from assay.studies.organelles.config import Params
from assay.studies.organelles.loss_section import LossConfig
from assay.studies.organelles.losses import build_loss
from assay.studies.organelles.prior import Frequencies

RUNNING = ["loss.prior=running", "loss.prior_momentum=0.5", "loss.prior_every=1"]
CASES = {
    "batch": ["loss.bce=0.3", "loss.focal=0.2", "loss.exclusion=0.1", "loss.min_voxels=1"],
    "sample": ["loss.pooling=sample", "loss.min_voxels=1"],
    "marginal": ["loss.tversky=0", "loss.marginal=1", "loss.adjust=none"],
    "running": ["loss.adjust=subtract", *RUNNING],
    "seesaw": ["loss.class_weights=seesaw", "loss.seesaw=[0.8,2]"],
}


def section_of(case: str) -> LossConfig:
    return load(Params, PARAMS, [*TINY, *CASES[case]]).loss


def measured(case: str, half: slice, group: Group) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, gradient of the logits, and adjustments, after three samples of one rank and one of the other."""
    positive = torch.logspace(2, 6, COUNT, dtype=torch.float64)
    frequencies = Frequencies(positive, torch.full_like(positive, 1e7), positive, positive)
    section = section_of(case)
    loss = build_loss(section, frequencies, group)
    logits, target = draw_batch(4, samples=4)
    target[3] = torch.nan
    logits = logits[half].requires_grad_()
    terms = loss(logits, target[half])
    total = sum(section.terms[name] * value for name, value in terms.items())
    total.backward()
    return total.detach(), logits.grad, loss.tversky.adjustment


def rank(number: int, folder: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    half = slice(0, 2) if number == 0 else slice(2, 4)
    found = {case: measured(case, half, Group(number, 2)) for case in CASES}
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_ranks_are_one_with_the_whole_batch(tmp_path):
    """With gradients averaged over the ranks, as DistributedDataParallel does; the last sample has no annotation."""
    mp.spawn(rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2)]
    for case in CASES:
        whole, gradient, shift = measured(case, slice(0, 4), Group.alone())
        losses, gradients, shifts = zip(*(found[case] for found in ranks), strict=True)
        for loss, other in zip(losses, shifts, strict=True):
            assert float(loss) == pytest.approx(float(whole), rel=1e-5), case
            assert torch.allclose(other, shift, atol=1e-6), case
        assert torch.allclose(torch.cat(gradients) / 2, gradient, atol=1e-5 * float(gradient.abs().max())), case
