"""Figures of the stage search; open it for a colour or a label."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from torch import Tensor

from assay.figures import page
from assay.studies.burgers.figures import Look
from assay.studies.burgers.selection import Agreement

LOOKS = {
    "reward": Look("chosen by reward", "#0072B2"),
    "random": Look("chosen at random", "#E69F00"),
    "oracle": Look("chosen by true error (oracle)", "#009E73"),
    "ensemble_mean": Look("mean of the candidates", "#CC79A7", "-."),
    "operator": Look("operator alone", "#D55E00", "--"),
    "persistence": Look("persistence", "#000000", ":"),
}


def error_by_time(path: Path, t: Tensor, errors: Mapping[str, Tensor]) -> None:
    """Rollout error of every method against time, both (K,)."""
    with page(path, 7.5, 4.2, grid=True) as figure:
        axis = figure.subplots()
        for name, error in errors.items():
            look = LOOKS[name]
            axis.plot(t, error, color=look.colour, linestyle=look.line, label=look.label)
        axis.set_yscale("log")
        axis.set_title("Rollout error of searched trajectories")
        axis.set_xlabel("time t")
        axis.set_ylabel("nRMSE of a frame\n(mean over trajectories)")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def selection(path: Path, t: Tensor, agreements: Sequence[Agreement]) -> None:
    """How well the reward knows the better candidate, at times t (K,), beside chance."""
    with page(path, 7.5, 4.6, grid=True) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        chance = [1 / each.candidates for each in agreements]
        _against_chance(upper, t, [each.picked_best for each in agreements], chance)
        upper.set_ylim(0, 1)
        upper.set_ylabel("share of choices")
        upper.set_title("The reward picks the candidate of least error")
        _against_chance(lower, t, [each.rank_correlation for each in agreements], [0.0] * len(agreements))
        lower.set_ylim(-1, 1)
        lower.set_ylabel("Spearman's rho")
        lower.set_title("Rank correlation of reward and minus error")
        lower.set_xlabel("time t")
        figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _against_chance(axis: Axes, t: Tensor, values: Sequence[float], chance: Sequence[float]) -> None:
    axis.plot(t, values, color=LOOKS["reward"].colour, label="reward")
    axis.plot(t, chance, color="#888888", linestyle=":", label="chance")
