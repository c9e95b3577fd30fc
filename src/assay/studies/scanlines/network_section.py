"""The network's section of the scanlines study's parameters; open it for an architecture and the keys it reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds, Problem
from assay.studies.scanlines.sections import only_used

Architecture = Literal["line_encoder", "causal", "lrcn", "cnn", "paper_cnn", "single_line", "library"]
Tokenizer = Literal["linear", "conv_pool", "conv_pool_planned", "conv_strided", "stem_2d"]
TOKENS = ("tokenizer", "d_model", "layers", "heads", "ffn_dim", "positions", "line_statistics", "backend")
USES: dict[str, tuple[str, ...]] = {
    "line_encoder": (*TOKENS, "mask_padding"),
    "causal": TOKENS,
    "lrcn": ("widths", "window", "window_stride", "read_out"),
    "cnn": ("widths",),
    "paper_cnn": (),
    "single_line": ("widths",),
    "library": ("library_name",),
}
"""The options that each architecture reads; every other option must be null with it."""
PER_LINE = ("causal", "lrcn", "single_line")
"""Architectures with a read-out after each line; the others give one label for a whole image."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. An option that the architecture does not have must be null."""

    architecture: Architecture
    """line_encoder: the published one; causal: after each line; lrcn: windows; single_line: lines one by one."""
    tokenizer: Tokenizer | None
    """How a line becomes a token; stem_2d also sees the lines before it."""
    d_model: Annotated[int, Bounds(ge=4)] | None
    """Channels of a token."""
    layers: Annotated[int, Bounds(ge=1)] | None
    """Attention blocks."""
    heads: Annotated[int, Bounds(ge=1)] | None
    """Attention heads."""
    ffn_dim: Annotated[int, Bounds(ge=1)] | None
    """Hidden units of a block's feed-forward part."""
    positions: Literal["learned", "sinusoidal", "rotary"] | None
    """How a token knows its line."""
    line_statistics: bool | None
    """Feed mean and sd of each line before normalisation, relative to a running median."""
    mask_padding: bool | None
    """Keep attention from lines that have not been scanned; false as published."""
    widths: Annotated[tuple[int, ...], Bounds(ge=4, items=2)] | None
    """Channels of the convolutions, multiples of 4."""
    window: Annotated[int, Bounds(ge=4)] | None
    """Lines of a window."""
    window_stride: Annotated[int, Bounds(ge=1)] | None
    """Lines between windows."""
    read_out: Literal["lstm", "cumulative_mean"] | None
    """What goes over the windows: an LSTM, or the mean of their probabilities so far."""
    library_name: str | None
    """Model of the timm library, e.g. resnet18."""
    normalisation: Literal["none", "line", "image"]
    """z-score of every line, as published; or of the image, which a model that reads line by line cannot know."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)]
    """Dropout in attention and feed-forward parts, or before the head."""
    backend: Literal["sdpa", "naive", "xformers"] | None
    """Attention kernel; naive is torch's matrix products; xformers wants an NVIDIA GPU and assay[xformers]."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that the architecture does not read, or that it needs."""
        yield from only_used(self, USES, "architecture", self.architecture)
        if self.per_line and self.normalisation == "image":
            remedy = "an image is known at its end only"
            yield Problem("normalisation", "image", f"line or none with architecture {self.architecture}", remedy)
        if self.heads and self.d_model and self.d_model % self.heads:
            yield Problem("heads", str(self.heads), f"divisors of d_model {self.d_model}")
        if self.architecture == "line_encoder" and self.tokenizer == "stem_2d":
            yield Problem("tokenizer", "stem_2d", "linear, conv_* with architecture line_encoder", "use causal")
        if self.positions == "rotary" and self.heads and self.d_model and self.d_model // self.heads % 2:
            yield Problem("heads", str(self.heads), "heads with an even number of channels with positions rotary")
        if self.widths is not None and any(width % 4 for width in self.widths):
            yield Problem("widths", str(list(self.widths)), "multiples of 4 (the group count of GroupNorm)")

    @property
    def per_line(self) -> bool:
        """Whether the network gives a label after each line."""
        return self.architecture in PER_LINE


def read_out_lines(config: ModelConfig, lines: int) -> range:
    """Number of lines seen at each read-out."""
    if config.architecture == "lrcn":
        return range(config.window or lines, lines + 1, config.window_stride or 1)
    return range(1, lines + 1) if config.per_line else range(lines, lines + 1)
