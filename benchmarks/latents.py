"""A training step of the latents study against the way it was first trained, and five seeds at once against one.

    python benchmarks/latents.py [--neurons N] [--batch B] [--latent L] [--hidden H]

The first way: batches by index, too, but one product for every projection, decoder and encoder called for each of two
losses, an unfused Adam, the loss fetched by `.item()` at every step, nothing compiled, and nvidia-smi asked twice an
epoch where there is one. Both train the skip model of the same size on the same batches and take turns; printed are
medians of times and of ratios turn by turn, and the model's FLOP/s: those of matrix products, as torch counts them.
On a GPU the engine's compile modes, TF32 and bf16 are measured, too.
Goals: on a CPU 1.15 times at 976 neurons; on a GPU 3 times at batch 32, 1.5 at 512, five seeds in twice
the time of one.
"""

import argparse
import dataclasses
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from assay.config import load
from assay.engine.precision import Compiled, pick_device
from assay.engine.state import TrainState
from assay.engine.train import backpropagate
from assay.studies.latents.config import Params
from assay.studies.latents.sections import DataConfig
from assay.studies.latents.task import LatentsTask

PARAMS = Path(__file__).parents[1] / "studies/latents/params.yaml"
STEPS_OF_A_TURN, TURNS, WARM_UP, TIME_STEPS, CHANNELS = 40, 7, 1, 3000, 61
MEMBERS = 5


class Noise:
    """A recording of nothing, of any size: what is measured does not depend on what is learnt."""

    connections = None

    def __init__(self, neurons: int) -> None:
        self.neurons, self.channels = neurons, CHANNELS
        self.kept = {"activity": torch.randn(TIME_STEPS, neurons), "stimulus": torch.rand(TIME_STEPS, CHANNELS)}

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Any stretch of it."""
        return self.kept[name][: end - first]


class PlainSkip(nn.Module):
    """One hidden layer with skips, as first published: a linear layer for every projection."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.project, self.beside = nn.Linear(inputs, hidden), nn.Linear(inputs, hidden)
        self.layer, self.last = nn.Linear(inputs + hidden, hidden), nn.Linear(2 * hidden, outputs)

    def forward(self, u: Tensor) -> Tensor:
        """Of each row."""
        y = torch.relu(self.layer(torch.cat([u, self.project(u)], 1)))
        out: Tensor = self.last(torch.cat([y, self.beside(u)], 1))
        return out


def first_way(params: Params, task: LatentsTask, neurons: int) -> Callable[[int], None]:
    """Steps as the study first took them."""
    model, width = params.model, params.model.autoencoder.hidden_dim or 1
    seen = model.stimulus_dim or 0
    encoder, decoder = PlainSkip(neurons, model.latent_dim, width), PlainSkip(model.latent_dim, neurons, width)
    sight = PlainSkip(CHANNELS, seen, params.model.stimulus.hidden_dim or 1)
    evolver = PlainSkip(model.latent_dim + seen, model.latent_dim, params.model.evolver.hidden_dim or 1)
    parts = nn.ModuleList([encoder, decoder, sight, evolver]).to(task.device)
    optimizer = torch.optim.Adam(parts.parameters(), lr=1e-3, foreach=False, fused=False)
    x, stimulus, size = task.training.activity, task.training.stimulus, params.train.batch_size
    monitor = shutil.which("nvidia-smi")
    total = 0.0

    def steps(count: int) -> None:
        nonlocal total
        for when in (0, 1):
            if monitor is not None:
                subprocess.run([monitor, "--query-gpu=memory.used", "--format=csv"], capture_output=True, check=False)
            for _ in range(count if when == 0 else 0):
                index = torch.randint(len(x) - 1, (size,), device=task.device)
                now, after, shown = x[index], x[index + 1], stimulus[index]
                optimizer.zero_grad()
                reconstruction = (decoder(encoder(now)) - now).square().mean()
                z = encoder(now)
                z = z + evolver(torch.cat([z, sight(shown)], 1))
                loss = (decoder(z) - after).square().mean() + reconstruction
                loss.backward()
                optimizer.step()
                total += loss.item()

    return steps


def this_way(params: Params, task: LatentsTask) -> Callable[[int], None]:
    """Steps as the engine takes them."""
    state = TrainState(task, params.train, 0, task.device)
    loss, batches = Compiled(state.ensemble.loss, params.train.compile), task.batches(0)

    def steps(count: int) -> None:
        for _ in range(count):
            backpropagate(state, task, loss, batches, 0)
            state.ensemble.clip(float("inf"))
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.schedule.step()
            state.step += 1

    return steps


def timed(steps: Callable[[int], None], device: torch.device) -> float:
    """Seconds of one step, the device's work included."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time  # other programs take turns with a CPU
    begun = clock()
    steps(STEPS_OF_A_TURN)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - begun) / STEPS_OF_A_TURN


def products(steps: Callable[[int], None]) -> int:
    """Floating-point operations of one step."""
    with FlopCounterMode(display=False) as counter:
        steps(1)
    return counter.get_total_flops()


def variants(device: torch.device) -> dict[str, list[str]]:
    """What is measured beside the first way."""
    found = {"engine": [], f"engine, {MEMBERS} seeds at once": [f"train.ensemble_size={MEMBERS}"]}
    if device.type == "cuda":
        found |= {"compiled": ["train.compile=default"], "CUDA graphs": ["train.compile=reduce-overhead"]}
        found["CUDA graphs, TF32"] = ["train.compile=reduce-overhead", "train.tf32=true"]
        found["CUDA graphs, bf16"] = ["train.compile=reduce-overhead", "train.precision=bf16"]
    return found


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser()
    for name, default in (("neurons", 976), ("batch", 256), ("latent", 64), ("hidden", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    device = pick_device("auto")
    torch.set_num_threads(1)
    hidden = [f"model.{part}.hidden_dim={given.hidden}" for part in ("autoencoder", "evolver")]
    size = [f"model.latent_dim={given.latent}", "model.evolver.kind=skip", "model.evolver.activation=relu", *hidden]
    size += [f"train.batch_size={given.batch}", "data.preset=full", "sampling.evolve_multiple_steps=1"]
    size += ["train.schedule.name=constant", *(f"train.schedule.{k}=null" for k in SCHEDULE), "train.steps=100000"]

    def made(overrides: list[str]) -> tuple[Params, LatentsTask]:
        params = load(Params, PARAMS, [*size, *overrides])
        short = dataclasses.replace(params, data=shortened(params.data))
        return short, LatentsTask(short, recording, device)  # type: ignore[arg-type]

    recording = Noise(given.neurons)
    ways = {"first way": first_way(*made([]), given.neurons)}
    ways |= {name: this_way(*made(overrides)) for name, overrides in variants(device).items()}
    taken = [{name: timed(steps, device) for name, steps in ways.items()} for _ in range(WARM_UP + TURNS)][WARM_UP:]
    flops = {name: products(ways["engine"]) * (MEMBERS if "seeds" in name else 1) for name in ways}
    flops["first way"] = products(ways["first way"])
    print(f"{given.neurons} neurons, batch {given.batch}, on {device.type}, {torch.get_num_threads()} threads")
    for name in ways:
        seconds = statistics.median(row[name] for row in taken)
        against = {
            other: statistics.median(row[other] / row[name] for row in taken) for other in ("first way", "engine")
        }
        print(f"    {name:24s} {1e3 * seconds:8.3f} ms a step, {against['first way']:.2f} x the first way, ", end="")
        print(
            f"{1 / against['engine']:.2f} times the engine's time, {flops[name] / seconds / 1e9:.0f} GFLOP/s",
            flush=True,
        )


SCHEDULE = ("warmup_fraction", "initial_division", "final_division")


def shortened(data: DataConfig) -> DataConfig:
    """Splits as long as the made-up recording."""
    spans = {"training": (0, TIME_STEPS), "validation": (0, 100), "test": (0, 100)}
    return dataclasses.replace(data, **spans)


if __name__ == "__main__":
    main()
