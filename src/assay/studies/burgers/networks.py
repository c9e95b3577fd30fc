"""The study's networks, built from parameters, written and read back; open it to load a trained one.

A file `results/<stage>/model.safetensors` holds the best weights, the parameters they were trained with, facts of the
data, and the digests of the data and of the networks it builds upon. It is loaded strictly.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from assay.config import resolved
from assay.config.load import build as build_config
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.engine.train import Trained
from assay.errors import CheckpointError, ConfigError
from assay.studies.burgers.config import Params
from assay.studies.burgers.dataset import dataset_spec
from assay.studies.burgers.model import (
    Autoencoder,
    AutoencoderOptions,
    Corrector,
    CorrectorOptions,
    FNOBaseline,
    FNOOptions,
    Forecaster,
    LatentOperator,
    OperatorOptions,
    matched_ffn_ratio,
)
from assay.studies.burgers.trajectories import Trajectories

SCHEMA = 1
RESULTS = Path("results")
Stage = Literal["autoencoder", "operator", "fno", "corrector", "distillation"]
Facts = Mapping[str, float]
SHARED = ("data.cells", "data.viscosities", "data.stride", "data.interval")
"""Parameters that every stage has to share with those before it."""


class Loaded(NamedTuple):
    """A network, the stage and parameters it was trained with, and the SHA-256 of its weights' file.

    upstream: SHA-256 of what it builds upon, of `data` and of networks by stage.
    """

    stage: Stage
    module: nn.Module
    params: Params
    facts: dict[str, float]
    digest: str
    upstream: Mapping[str, str]


def model_path(stage: Stage) -> Path:
    """Where a stage of this pipeline writes its network."""
    return RESULTS / stage / "model.safetensors"


def open_data(params: Params) -> Trajectories:
    """The data set that the simulate stage wrote.

    Raises:
        DataError: it is missing, damaged, or was made with other parameters.
    """
    return Trajectories(Path(params.data.path), dataset_spec(params.data))


def build(stage: Stage, params: Params, facts: Facts) -> nn.Module:
    """A fresh network of a stage. facts: `mean` and `std` of the training fields, in the field's unit.

    Raises:
        ConfigError: counts do not divide, or a package is missing.
    """
    builders: dict[Stage, Callable[[Params, float, float], nn.Module]] = {
        "autoencoder": _autoencoder,
        "operator": _forecaster,
        "fno": _fno,
        "corrector": _corrector,
        "distillation": _corrector,
    }
    return builders[stage](params, facts["mean"], facts["std"])


def _autoencoder(params: Params, mean: float, std: float) -> Autoencoder:
    given = {**_picked(AutoencoderOptions, params.autoencoder), **_picked(AutoencoderOptions, params.model)}
    chosen = {name: value for name, value in given.items() if value is not None}  # null: of the other decoder
    return Autoencoder(AutoencoderOptions(cells=params.data.cells, mean=mean, std=std, **chosen))


def operator_options(params: Params) -> OperatorOptions:
    """The operator's options; a wanted number of parameters becomes a feed-forward width."""
    given = _picked(OperatorOptions, params.model)
    given |= {"ffn_ratio": params.model.ffn_ratio or 1.0, "shared_groups": params.model.shared_groups is not False}
    options = OperatorOptions(**given)
    if params.model.parameters is None:
        return options
    return dataclasses.replace(options, ffn_ratio=matched_ffn_ratio(options, params.model.parameters))


def _forecaster(params: Params, mean: float, std: float) -> Forecaster:
    return Forecaster(
        _autoencoder(params, mean, std),
        LatentOperator(operator_options(params)),
        rollout=params.model.rollout,
        conserve_mass=params.model.conserve_mass,
    )


def _fno(params: Params, mean: float, std: float) -> FNOBaseline:
    viscosity = params.model.viscosity
    return FNOBaseline(
        FNOOptions(cells=params.data.cells, mean=mean, std=std, viscosity=viscosity, **dataclasses.asdict(params.fno))
    )


def _corrector(params: Params, mean: float, std: float) -> Corrector:
    chosen = _picked(CorrectorOptions, params.corrector)
    return Corrector(CorrectorOptions(cells=params.data.cells, mean=mean, std=std, attention="standard", **chosen))


def _picked(options: Any, section: Any) -> dict[str, Any]:
    """The fields of a section that a class of options has, too."""
    names = {field.name for field in dataclasses.fields(options)}
    return {field.name: getattr(section, field.name) for field in dataclasses.fields(section) if field.name in names}


def save(  # noqa: PLR0913 - one file: whose weights, where, and all that they came from
    stage: Stage,
    folder: Path,
    trained: Trained,
    params: Params,
    facts: Facts,
    upstream: Mapping[str, str],
    identity: str,
) -> None:
    """Write the best weights of a run with all that is needed to build the network again."""
    document = {
        "schema": SCHEMA,
        "stage": stage,
        "params": resolved(params),
        "facts": dict(facts),
        "upstream": dict(upstream),
        "identity": identity,
        "best_step": trained.best_step[0],
    }
    write_tensors(folder / "model.safetensors", {name: tensor[0] for name, tensor in trained.best.items()}, document)


def load(path: Path, stage: Stage, device: torch.device) -> Loaded:
    """The network in a file.

    Raises:
        CheckpointError: there is no file, it is damaged, of another stage, or does not fit the network it names.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; the stage before writes it; run assay stage burgers {stage}")
    tensors, document = read_tensors(path)
    params, facts, upstream = _described(path, document, stage)
    module = build(stage, params, facts)
    _fill(path, module, tensors)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Loaded(stage, module.to(device).eval(), params, facts, digest, upstream)


def load_shared(stage: Stage, params: Params, here: Mapping[str, str], device: torch.device) -> Loaded:
    """The network that an earlier stage wrote, if it is for the fields of these parameters and of one line with `here`.

    here: SHA-256 of `data` and of networks by stage.

    Raises:
        CheckpointError: there is none, it is damaged, was trained for other fields, on other data, or with another
            network of an earlier stage.
    """
    path = model_path(stage)
    loaded = load(path, stage, device)
    require_same(path, loaded, params, SHARED)
    for name, digest in loaded.upstream.items():
        if name in here and here[name] != digest:
            got = f"trained with {name} {digest[:12]}, not {here[name][:12]}"
            raise CheckpointError(f"{path}: {got}, which is here now; run assay stage burgers {stage} again")
    return loaded


def _fill(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit its network ({reason}); train again") from None


def _described(
    path: Path, document: Mapping[str, Any], stage: Stage
) -> tuple[Params, dict[str, float], dict[str, str]]:
    try:
        if (document["schema"], document["stage"]) != (SCHEMA, stage):
            got = f"schema {document['schema']} of stage {document['stage']}"
            raise CheckpointError(f"{path}: got {got}; allowed: {SCHEMA} of {stage}; train again")
        return build_config(Params, document["params"]), document["facts"], document["upstream"]
    except (KeyError, TypeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a model of this study and version ({reason}); train again") from None


def require_same(path: Path, loaded: Loaded, params: Params, keys: tuple[str, ...]) -> None:
    """Refuse a network that was trained with other values of some dotted keys than those of this run.

    Raises:
        CheckpointError: names the first key that differs.
    """
    for key in keys:
        section, name = key.split(".")
        there, here = (getattr(getattr(of, section), name) for of in (loaded.params, params))
        if there != here:
            raise CheckpointError(f"{path}: trained with {key} {there}, not {here}; run the stage before again")
