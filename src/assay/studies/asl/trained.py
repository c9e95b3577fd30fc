"""Trained networks on disk and in memory; open it to load a model, or its untrained twin, and estimate maps.

A model folder holds, for each member k, `member-k.safetensors` (best by validation loss) and `last-k.safetensors`.
Each carries the parameters, statistics and run identity it was trained with, and is loaded strictly.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from assay.config import resolved
from assay.config.load import build as build_config
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.engine.random import derive
from assay.engine.train import Trained
from assay.errors import CheckpointError, ConfigError
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.model import Prediction, Statistics, build

SCHEMA = 1
BATCH = 64  # images per forward pass: bounds memory at evaluation


class Maps(NamedTuple):
    """CBF in ml/100 g/min and ATT in ms, (B, H, W); standard deviations where the model was trained to give them."""

    cbf: Tensor
    att: Tensor
    cbf_std: Tensor | None
    att_std: Tensor | None


class TrainedModel:
    """The members of an ensemble and the parameters they were trained with."""

    def __init__(self, modules: list[nn.Module], params: Params, statistics: Statistics, identity: str) -> None:
        self.modules, self.params, self.statistics, self.identity = modules, params, statistics, identity
        self.members = len(modules)

    @torch.no_grad()
    def estimate(self, signal: Tensor, sigma: Tensor) -> Maps:
        """Mean over members of the clamped maps, from dM/M0 (B, 2P, H, W) and its noise sd (B, 1, 1, 1)."""
        parts = [
            self._estimate(signal[start : start + BATCH], sigma[start : start + BATCH])
            for start in range(0, len(signal), BATCH)
        ]
        columns = list(zip(*parts, strict=True))
        return Maps(*(torch.cat(column) if column[0] is not None else None for column in columns))  # type: ignore[arg-type]

    def _estimate(self, signal: Tensor, sigma: Tensor) -> Maps:
        predictions: list[Prediction] = [module(signal, sigma).clamped() for module in self.modules]
        cbf = torch.stack([p.cbf.squeeze(1) for p in predictions])
        att = torch.stack([p.att.squeeze(1) for p in predictions])
        if not self.params.model.learned_variance:
            return Maps(cbf.mean(0), att.mean(0), None, None)
        cbf_var = torch.stack([p.log_var_cbf.squeeze(1).exp() for p in predictions]) * self.statistics.cbf_std**2
        att_var = torch.stack([p.log_var_att.squeeze(1).exp() for p in predictions]) * self.statistics.att_std**2
        return Maps(cbf.mean(0), att.mean(0), _total_std(cbf, cbf_var), _total_std(att, att_var))


def _total_std(means: Tensor, variances: Tensor) -> Tensor:
    """Standard deviation of a mixture of members: mean variance plus variance of means (over dimension 0)."""
    total: Tensor = (variances.mean(0) + means.var(0, correction=0)).sqrt()
    return total


def save_trained(folder: Path, trained: Trained, params: Params, statistics: Statistics, identity: str) -> None:
    """Write every member's best and last weights with all that is needed to rebuild it."""
    for k in range(len(trained.best_value)):
        document = {
            "schema": SCHEMA,
            "params": resolved(params),
            "statistics": dataclasses.asdict(statistics),
            "identity": identity,
            "member": k,
            "best_step": trained.best_step[k],
        }
        for name, state in (("member", trained.best), ("last", trained.last)):
            write_tensors(folder / f"{name}-{k}.safetensors", {key: t[k] for key, t in state.items()}, document)
    for path in folder.glob("*-*.safetensors"):
        if int(path.stem.partition("-")[2]) >= len(trained.best_value):
            path.unlink()  # a member of an earlier, larger ensemble


def load_trained(folder: Path, device: torch.device) -> TrainedModel:
    """The best weights of every member in a model folder.

    Raises:
        CheckpointError: there is no model, a file is damaged, or it does not fit the architecture it names.
    """
    paths = sorted(folder.glob("member-*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder}: got no member-*.safetensors; allowed: a trained model; run the train stage")
    loaded = [_load_member(path, device) for path in paths]
    if len({identity for *_, identity in loaded}) > 1:
        raise CheckpointError(f"{folder}: holds members of different runs; remove it and run the train stage")
    modules = [module for module, *_ in loaded]
    wanted = loaded[0][1].train.ensemble_size
    if len(modules) != wanted:
        raise CheckpointError(f"{folder}: got {len(modules)} members; allowed: {wanted}; run the train stage again")
    return TrainedModel(modules, *loaded[0][1:])


def untrained(folder: Path, seed: int, device: torch.device) -> TrainedModel:
    """The null: the same architecture and statistics with fresh weights, drawn from `seed`."""
    trained = load_trained(folder, device)
    modules = []
    for k in range(trained.members):
        torch.manual_seed(derive(seed, "null", k))
        modules.append(_build(trained.params, trained.statistics).to(device).eval())
    return TrainedModel(modules, trained.params, trained.statistics, f"untrained-{seed}")


def _build(params: Params, statistics: Statistics) -> nn.Module:
    physics = nominal_physics(params)
    return build(params.model, plds=params.physics.plds, physics=physics, statistics=statistics)


def _load_member(path: Path, device: torch.device) -> tuple[nn.Module, Params, Statistics, str]:
    tensors, document = read_tensors(path)
    params, statistics = _described(path, document)
    module = _build(params, statistics)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit its architecture ({reason}); train again") from None
    return module.to(device).eval(), params, statistics, document["identity"]


def _described(path: Path, document: dict[str, Any]) -> tuple[Params, Statistics]:
    try:
        if document["schema"] != SCHEMA:
            raise CheckpointError(f"{path}: got schema {document['schema']}; allowed: {SCHEMA}; train again")
        return build_config(Params, document["params"]), Statistics(**document["statistics"])
    except (KeyError, TypeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a model of this study and version ({reason}); train again") from None
