"""The trained encoder and decoder between fields and latent states; open it to see what a latent token holds."""

import hashlib

import torch
from torch import Tensor, nn

from assay.studies.burgers.model.attention import attend
from assay.studies.burgers.model.blocks import Neighbours, Positions, periodic_features
from assay.studies.burgers.model.options import AutoencoderOptions, divide


class Encoder(nn.Module):
    """Standardised fields (B, cells) to tokens (B, T, d): patch by patch, then neighbours, then positions."""

    def __init__(self, options: AutoencoderOptions) -> None:
        super().__init__()
        self.patch = divide(options.cells, options.tokens, "tokens", "cells")
        latent, frequencies = options.latent_dim, options.position_frequencies
        self.embed = nn.Linear(self.patch, latent)
        self.neighbours = Neighbours(latent)
        self.positions = Positions(options.tokens, latent, frequencies) if frequencies else nn.Identity()
        self.norm = nn.LayerNorm(latent) if options.latent_norm else nn.Identity()

    def forward(self, u: Tensor) -> Tensor:
        tokens = self.embed(u.view(len(u), -1, self.patch))
        out: Tensor = self.norm(self.positions(self.neighbours(tokens)))
        return out


class PatchDecoder(nn.Module):
    """Tokens (B, T, d) to standardised fields (B, cells): each token, knowing its neighbours, gives its own cells."""

    def __init__(self, options: AutoencoderOptions) -> None:
        super().__init__()
        self.neighbours = Neighbours(options.latent_dim)
        self.read = nn.Linear(options.latent_dim, divide(options.cells, options.tokens, "tokens", "cells"))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.read(self.neighbours(z))
        return out.flatten(1)


class CrossAttention(nn.Module):
    """Queries attend to latents; then a feed-forward network; both residual and normalised afterwards."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.norm, self.ffn_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.ffn = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, queries: Tensor, latents: Tensor) -> Tensor:
        """(B, Q, H) and (B, T, H) to (B, Q, H)."""
        inputs = (self.query(queries), self.key(latents), self.value(latents))
        q, k, v = (tokens.view(*tokens.shape[:2], self.heads, -1) for tokens in inputs)
        queries = self.norm(queries + self.out(attend(q, k, v, "sdpa").flatten(2)))
        out: Tensor = self.ffn_norm(queries + self.ffn(queries))
        return out


class QueryDecoder(nn.Module):
    """Tokens (B, T, d) to standardised values at any points (Q,) of [0, 1), by default the cell centres: (B, Q).

    Points and tokens share no distance, so tokens have to carry positions. After the decoder of Universal Physics
    Transformers (Alkin et al. 2024, arXiv 2402.12365), with features that respect the period.
    """

    def __init__(self, options: AutoencoderOptions) -> None:
        super().__init__()
        hidden, heads = options.decoder_hidden_dim, options.decoder_heads
        divide(options.cells, options.tokens, "tokens", "cells")
        divide(hidden, heads, "decoder_heads", "decoder_hidden_dim")
        self.frequencies = options.decoder_frequencies
        self.centres: Tensor
        self.register_buffer("centres", (torch.arange(options.cells) + 0.5) / options.cells, persistent=False)
        self.ask = nn.Linear(2 * len(self.frequencies), hidden)
        self.enter = nn.Linear(options.latent_dim, hidden)
        self.layers = nn.ModuleList(CrossAttention(hidden, heads) for _ in range(options.decoder_layers))
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        features = periodic_features(self.centres if points is None else points, self.frequencies)
        queries, latents = self.ask(features).expand(z.shape[0], -1, -1), self.enter(z)
        for layer in self.layers:
            queries = layer(queries, latents)
        values: Tensor = self.head(queries)
        return values.squeeze(-1)


class Autoencoder(nn.Module):
    """Fields u (B, cells), in their own unit, to latent states (B, T, d) and back.

    Mean and standard deviation of the training fields are part of the weights. Raises `ConfigError` if `tokens` does
    not divide `cells`, or `decoder_heads` its width.
    """

    def __init__(self, options: AutoencoderOptions) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(options.mean))
        self.register_buffer("std", torch.tensor(options.std))
        self.encoder = Encoder(options)
        self.decoder = PatchDecoder(options) if options.decoder == "patch" else QueryDecoder(options)

    def encode(self, u: Tensor) -> Tensor:
        """Fields (B, cells) to latent states (B, T, d)."""
        z: Tensor = self.encoder((u - self.mean) / self.std)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Latent states (B, T, d) to fields (B, cells)."""
        u: Tensor = self.mean + self.std * self.decoder(z)
        return u

    def forward(self, u: Tensor) -> Tensor:
        """The reconstruction of fields (B, cells)."""
        return self.decode(self.encode(u))


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a network's weights: equal in every process and after every reload, or something went wrong."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
