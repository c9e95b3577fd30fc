"""Device, number format and compilation; open it when a GPU behaves unlike a CPU.

Only networks and losses run in the short formats. Batches are drawn outside of them, so data are the same in every
format; so is what a task makes of a network's outputs in validation, which reach it as float32.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from assay.engine.config import TrainConfig
from assay.engine.task import Model
from assay.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device a config asks for.

    Raises:
        ConfigError: it asks for cuda and this machine or this build of torch has none.
    """
    torch.backends.cudnn.allow_tf32 = False  # evaluation is exact; training may allow it, see Precision
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device: got cuda; allowed: cpu, auto (torch finds no GPU here); set device: auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


class Precision:
    """Autocast and loss scaling of one run. fp16 scales the loss; fp32 and bf16 do not need it."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        if config.precision == "fp16" and device.type == "cpu":
            raise ConfigError("train.precision: got fp16 on a cpu; allowed: fp32, bf16; set train.precision: bf16")
        self.device = device
        self.dtype = DTYPES[config.precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.tf32

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which forward passes run in the chosen format."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def network(self, model: Model) -> Model:
        """The network alone in the chosen format, for a task that judges it: what it gives in that is made float32."""

        def call(*inputs: Any) -> Any:
            with self.autocast():
                outputs = model(*inputs)
            return tree_map_only(Tensor, self._exact, outputs)

        return call

    def _exact(self, tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype is self.dtype else tensor


class Compiled:
    """The function, compiled by torch.compile in the given mode unless that is `none`.

    Where compiling it, or replaying what was compiled, fails, it goes on uncompiled; `fallback` says why. An error of
    the function's own is raised by it uncompiled, too.
    """

    def __init__(self, function: Callable[..., Any], mode: str) -> None:
        self.function, self.wanted = function, mode
        self.fallback: str | None = None
        self._fast = function if mode == "none" else torch.compile(function, mode=mode)

    @property
    def used(self) -> str:
        """The mode that was used last."""
        return "none" if self.fallback else self.wanted

    def __call__(self, *inputs: Any) -> Any:
        """What the function gives."""
        if self.used == "none":
            return self.function(*inputs)
        try:
            return self._fast(*inputs)
        except Exception as error:  # torch names no class for what compilers and CUDA graphs raise
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            self.fallback = f"{type(error).__name__}: {reason}"
        result = self.function(*inputs)
        print(f"train.compile: {self.wanted} failed ({self.fallback}); goes on with none", file=sys.stderr, flush=True)
        return result
