"""A training step of the burgers operator against a plain PyTorch implementation of the same model, on the CPU.

    python benchmarks/burgers_step.py [--compile]

Both start from equal weights and take turns on the same batch: encoder, two latent steps, decoder, mean squared error
of two frames, gradients, clipping, AdamW. The plain one is the equations written down: softmax(q k^T) v, a projection
for each of q, k and v, groups as extra samples, an optimiser without fused kernels. Printed are medians of times and of
ratios turn by turn, and how far the first losses differ. Goal: ratio >= 1.2.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.studies.burgers.model import Autoencoder, AutoencoderOptions, Forecaster, LatentOperator, OperatorOptions
from assay.studies.burgers.model.attention import RMS_EPS, Attention, ChannelSeparatedAttention
from assay.studies.burgers.model.blocks import Block
from assay.studies.burgers.model.operator import UNet

BATCH, REPETITIONS, WARM_UP, CELLS, TOKENS, LATENT = 8, 7, 2, 1024, 128, 128
ARMS: dict[str, OperatorOptions] = {
    "U, channel-separated, 4.1 M parameters": OperatorOptions(
        architecture="pdet_unet", tokens=TOKENS, latent_dim=LATENT, hidden_dim=256, depth=(3, 3, 2), heads=8,
        attention="channel_separated", group_size=32, qk_norm=True, ffn_ratio=2,
    ),
    "stack, channel-separated, 4.3 M parameters": OperatorOptions(
        architecture="pdet_stack", tokens=TOKENS, latent_dim=LATENT, hidden_dim=256, depth=(8,), heads=8,
        attention="channel_separated", group_size=32, qk_norm=True,
    ),
    "stack, standard, 6.4 M parameters": OperatorOptions(
        architecture="pdet_stack", tokens=TOKENS, latent_dim=LATENT, hidden_dim=256, depth=(8,), heads=8,
        attention="standard", qk_norm=True,
    ),
}  # fmt: skip


def plain_attention(layer: nn.Module, x: Tensor) -> Tensor:
    """Attention as its definition reads."""
    if isinstance(layer, ChannelSeparatedAttention):
        return plain_groups(layer, x)
    assert isinstance(layer, Attention)
    weights, biases = layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)
    q, k, v = (functional.linear(x, w, b) for w, b in zip(weights, biases, strict=True))
    q, k, v = (split_heads(part, layer.heads) for part in (q, k, v))
    q, k = plain_rms(q, layer.query_norm.weight), plain_rms(k, layer.key_norm.weight)
    return layer.out(join_heads(plain_softmax(q, k, v)))


def plain_groups(layer: ChannelSeparatedAttention, x: Tensor) -> Tensor:
    """Groups of channels as extra samples."""
    batch, tokens, hidden = x.shape
    groups, width = layer.groups, layer.width
    x = x.reshape(batch, tokens, groups, width).permute(0, 2, 1, 3).reshape(batch * groups, tokens, width)
    q = functional.linear(plain_rms(x, layer.query_norm[0]), layer.query.weight[0], layer.query.bias[0])
    k = functional.linear(plain_rms(x, layer.key_norm[0]), layer.key.weight[0], layer.key.bias[0])
    v = functional.linear(x, layer.value.weight[0], layer.value.bias[0])
    heads = layer.heads // groups
    attended = join_heads(plain_softmax(*(split_heads(part, heads) for part in (q, k, v))))
    out = functional.linear(attended, layer.out.weight[0], layer.out.bias[0])
    return out.reshape(batch, groups, tokens, width).permute(0, 2, 1, 3).reshape(batch, tokens, hidden)


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).permute(0, 2, 1, 3)


def join_heads(x: Tensor) -> Tensor:
    return x.permute(0, 2, 1, 3).flatten(2)


def plain_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1) @ v


def plain_rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + RMS_EPS)


def plain_block(block: Block, x: Tensor) -> Tensor:
    x = x + plain_attention(block.attention, block.attention_norm(x))
    return x + block.ffn(block.ffn_norm(x))


def plain_core(core: nn.Module, x: Tensor) -> Tensor:
    """The stack, or down and up the levels of the U."""
    if not isinstance(core, UNet):
        for block in core.blocks:
            x = plain_block(block, x)
        return x
    skips: list[Tensor] = []
    for index, level in enumerate(core.levels):
        if index > len(core.down):
            skipped = skips.pop()
            doubled = torch.repeat_interleave(x, 2, dim=1)
            beside = torch.stack([x.roll(1, 1), x.roll(-1, 1)], dim=2).flatten(1, 2)
            x = 0.75 * doubled + 0.25 * beside + core.skip[2 * len(core.down) - index](skipped)
        for block in level:
            x = plain_block(block, x)
        if index < len(core.down):
            skips.append(x)
            x = core.down[index](functional.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2))
    return x


def plain_step(operator: LatentOperator, z: Tensor, dt: Tensor) -> Tensor:
    shift = operator.shift(operator.condition(torch.log10(dt / 0.01)[:, None]))[:, None, :]
    change = operator.leave(operator.norm(plain_core(operator.core, operator.enter(z + shift))))
    return z + (operator.gain * change + operator.bias)


def plain_loss(network: Forecaster, frames: Tensor, dt: Tensor) -> Tensor:
    z = network.autoencoder.encode(frames[:, 0])
    loss = torch.zeros(())
    for frame in (1, 2):
        z = plain_step(network.operator, z, dt)
        loss = loss + ((network.autoencoder.decode(z) - frames[:, frame]) ** 2).mean() / 2
    return loss


def library_loss(network: Forecaster, frames: Tensor, dt: Tensor) -> Tensor:
    return functional.mse_loss(network(frames[:, 0], dt, steps=2).fields[:, 1:], frames[:, 1:])


def forecaster(options: OperatorOptions) -> Forecaster:
    """A network that has left its starting point, the same at every call."""
    torch.manual_seed(0)
    network = Forecaster(
        Autoencoder(AutoencoderOptions(cells=CELLS, tokens=TOKENS, latent_dim=LATENT, mean=0.0, std=0.6)),
        LatentOperator(options),
        rollout="latent",
    )
    nn.init.constant_(network.operator.gain, 0.1)
    return network


def stepper(
    loss: Callable[[Forecaster, Tensor, Tensor], Tensor], network: Forecaster, *, fused: bool
) -> Callable[[Tensor, Tensor], tuple[float, Tensor]]:
    """One optimiser step: seconds and loss."""
    options = {"fused": True} if fused else {}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, **options)

    def step(frames: Tensor, dt: Tensor) -> tuple[float, Tensor]:
        begun = time.perf_counter()
        value = loss(network, frames, dt)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - begun, value.detach()

    return step


def main() -> None:
    """Print one line per arm and implementation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="the library's loss with torch.compile, too")
    arguments = parser.parse_args()
    frames, dt = 0.6 * torch.randn(BATCH, 3, CELLS), torch.full((BATCH,), 0.02)
    for name, options in ARMS.items():
        steps = {
            "plain": stepper(plain_loss, forecaster(options), fused=False),
            "library": stepper(library_loss, forecaster(options), fused=True),
        }
        if arguments.compile:
            steps["compiled"] = stepper(torch.compile(library_loss), forecaster(options), fused=True)
        taken = [{arm: step(frames, dt) for arm, step in steps.items()} for _ in range(REPETITIONS + WARM_UP)]
        losses = [float(value) for _, value in taken[0].values()]
        print(f"{name}: {torch.get_num_threads()} threads, first losses differ by {max(losses) - min(losses):.1e}")
        for arm in steps:
            turns = taken[WARM_UP:]
            seconds = statistics.median(row[arm][0] for row in turns)
            ratio = statistics.median(row["plain"][0] / row[arm][0] for row in turns)
            print(f"    {arm:9s} {1e3 * seconds:6.0f} ms a step of {BATCH}, {ratio:.2f} x plain", flush=True)


if __name__ == "__main__":
    main()
