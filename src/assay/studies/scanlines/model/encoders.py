"""Transformers over lines: the published encoder, and one that gives a label after each line; open it to stream.

The published one puts a learned token first and reads it out. Under a causal mask that token would see nothing but
itself, so the causal encoder has none: every line's token attends to the lines until it and is read out.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.studies.scanlines.model.attention import Block, BlockOptions, Cache, causal_mask, padding_mask, sinusoidal
from assay.studies.scanlines.model.lines import MEDIAN_OVER, moments, normalise, relative
from assay.studies.scanlines.model.tokenizers import Rows, build_tokenizer
from assay.studies.scanlines.network_section import ModelConfig

SPREAD = 0.02


class Embedding(nn.Module):
    """Tokens of raw lines, with their positions and, if asked for, what normalisation removes."""

    def __init__(self, config: ModelConfig, options: BlockOptions, points: int, tokens: int) -> None:
        super().__init__()
        self.normalisation, d = config.normalisation, options.d_model
        self.tokenizer = build_tokenizer(config.tokenizer or "linear", points, d, options.dropout)
        self.statistics = nn.Linear(2, d) if config.line_statistics else None
        self.positions: Tensor | None
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(tokens, d).uniform_(-SPREAD, SPREAD))
        else:  # rotary ones act in the blocks
            given = sinusoidal(tokens, d) if config.positions == "sinusoidal" else None
            self.register_buffer("positions", given, persistent=False)

    def forward(self, lines: Tensor) -> Tensor:
        """Tokens (B, N, d), positions not yet added, of lines (B, N, P)."""
        tokens: Tensor = self.tokenizer(normalise(lines, self.normalisation))
        if self.statistics is not None:
            tokens = tokens + self.statistics(relative(moments(lines), lines.shape[1]))
        return tokens


def block_options(config: ModelConfig) -> BlockOptions:
    """Size and kind of the blocks.

    Raises:
        ValueError: an option of the attention is null, which the parameters' own check does not admit.
    """
    d_model, heads, ffn_dim, backend = config.d_model, config.heads, config.ffn_dim, config.backend
    if d_model is None or heads is None or ffn_dim is None or backend is None:
        raise ValueError("an encoder needs d_model, heads, ffn_dim and backend")
    return BlockOptions(d_model, heads, ffn_dim, config.dropout, config.positions == "rotary", backend)


class LineEncoder(nn.Module):
    """The published line-token encoder: one label for an image, read out from a learned token in front."""

    def __init__(self, config: ModelConfig, lines: int, points: int, classes: int) -> None:
        super().__init__()
        options = block_options(config)
        self.embedding = Embedding(config, options, points, lines + 1)
        self.first = nn.Parameter(torch.empty(1, 1, options.d_model).uniform_(-SPREAD, SPREAD))
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(config.layers or 1))
        self.norm, self.head = nn.LayerNorm(options.d_model), nn.Linear(options.d_model, classes)
        self.mask_padding = bool(config.mask_padding)

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, 1, K) of images (B, N, P) of which the first `lengths` (B,) lines have been scanned."""
        tokens = self.embedding(lines)
        x = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1)
        if self.embedding.positions is not None:
            x = x + self.embedding.positions[: x.shape[1]]
        x = self.dropout(x)
        mask = padding_mask(lengths, x.shape[1], 1) if lengths is not None and self.mask_padding else None
        for block in self.blocks:
            x = block(x, mask)
        logits: Tensor = self.head(self.norm(x[:, :1]))
        return logits


class Stream(NamedTuple):
    """What a causal encoder keeps of the lines so far."""

    line: int
    moments: Tensor
    rows: Rows | None
    caches: list[Cache | None]


class CausalEncoder(nn.Module):
    """A label after each line, from the lines until it."""

    def __init__(self, config: ModelConfig, lines: int, points: int, classes: int) -> None:
        super().__init__()
        options = block_options(config)
        self.embedding = Embedding(config, options, points, lines)
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(config.layers or 1))
        self.norm, self.head = nn.LayerNorm(options.d_model), nn.Linear(options.d_model, classes)

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, N, K) after each line of (B, N, P); lines that follow have no influence, so `lengths` has none."""
        x = self._placed(self.embedding(lines), 0)
        mask = causal_mask(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, mask)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def start(self) -> Stream:
        """The state before the first line."""
        empty = self.head.weight.new_zeros(1, 0, 2)
        return Stream(0, empty, None, [None] * len(self.blocks))

    def step(self, line: Tensor, stream: Stream) -> tuple[Tensor, Stream]:
        """Logits (1, K) after the next raw line (1, 1, P), as `forward` gives them, and the new state."""
        seen = torch.cat([stream.moments, moments(line)], 1)[:, -MEDIAN_OVER:]
        x, rows = self.embedding.tokenizer.step(normalise(line, self.embedding.normalisation), stream.rows)
        if self.embedding.statistics is not None:
            x = x + self.embedding.statistics(relative(seen, 1))
        x = self._placed(x, stream.line)
        caches: list[Cache | None] = []
        for module, before in zip(self.blocks, stream.caches, strict=True):
            block: Block = module  # type: ignore[assignment]
            x, cache = block.step(x, before)
            caches.append(cache)
        return self.head(self.norm(x[:, 0])), Stream(stream.line + 1, seen, rows, caches)

    def _placed(self, tokens: Tensor, first: int) -> Tensor:
        if self.embedding.positions is not None:
            tokens = tokens + self.embedding.positions[first : first + tokens.shape[1]]
        placed: Tensor = self.dropout(tokens)
        return placed
