"""What a UNet and its transformer blocks cost, by formula: parameters and multiply-accumulates, without PyTorch.

Multiply-accumulates are those of convolutions, linear layers and attention's own products, for one picture and one
conditioning; norms, activations and additions count nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .shape import UNetShape

#: Tokens of a prompt that CLIP takes at once.
TOKENS = 77


class Cost(NamedTuple):
    """Plain numbers.

    Attributes:
        params: parameters.
        macs: multiply-accumulates.
        dense: those of convolutions and linear layers alone, which are what the paper's tables count.
    """

    params: int
    macs: int
    dense: int


def block_cost(channels: int, context_dim: int, positions: int, tokens: int = TOKENS) -> Cost:
    """Cost of one transformer block: self-attention, cross-attention, gated feed-forward of four times the width.

    Args:
        channels: width.
        context_dim: width of the conditioning's tokens.
        positions: height x width of the feature map there.
        tokens: conditioning tokens.
    """
    c, d = channels, context_dim
    # Queries, keys and values have no bias.
    self_attention = 4 * c * c
    cross_attention = 2 * c * c
    feed_forward = c * 8 * c + 4 * c * c
    to_tokens = 2 * d * c
    # Biases: two output projections, the feed-forward's two layers; three norms with weight and bias.
    params = self_attention + cross_attention + feed_forward + to_tokens + (2 * c + 8 * c + c) + 6 * c
    products = 2 * positions * positions * c + 2 * positions * tokens * c
    dense = positions * (self_attention + cross_attention + feed_forward) + tokens * to_tokens
    return Cost(params, dense + products, dense)


def _conv(inputs: int, outputs: int, positions: int, kernel: int = 3) -> Cost:
    weights = inputs * outputs * kernel * kernel
    return Cost(weights + outputs, weights * positions, weights * positions)


def _linear(inputs: int, outputs: int, positions: int = 1) -> Cost:
    return _conv(inputs, outputs, positions, 1)


def _norm(channels: int) -> Cost:
    return Cost(2 * channels, 0, 0)


def _sum(*costs: Cost) -> Cost:
    return Cost(*(sum(numbers) for numbers in zip(*costs, strict=True)))


def _resnet(inputs: int, outputs: int, time: int, positions: int) -> Cost:
    parts = [
        _norm(inputs),
        _conv(inputs, outputs, positions),
        _linear(time, outputs),
        _norm(outputs),
        _conv(outputs, outputs, positions),
    ]
    if inputs != outputs:
        parts.append(_conv(inputs, outputs, positions, 1))
    return _sum(*parts)


def unet_cost(
    shape: UNetShape,
    plan_blocks: Mapping[str, Collection[int]] | None = None,
    latent: tuple[int, int] = (128, 128),
    tokens: int = TOKENS,
) -> Cost:
    """Cost of a whole UNet at batch 1.

    Args:
        shape: of the unpruned UNet.
        plan_blocks: the blocks that each stack has; stacks not named are whole.
        latent: height and width of the latent; an odd side is rounded up where it is halved.
        tokens: conditioning tokens.
    """
    widths, blocks = shape.channels, plan_blocks or {}
    time = 4 * widths[0]
    h, w = latent
    # A stride of two rounds up, and the decoder takes the encoder's sizes.
    positions = [-(-h // 2**i) * -(-w // 2**i) for i in range(len(widths))]

    def stack(name: str, level: int) -> Cost:
        depth = shape.topology.depths.get(name)
        if depth is None:
            return Cost(0, 0, 0)
        c, count = widths[level], len(blocks[name]) if name in blocks else depth
        block = block_cost(c, shape.context_dim, positions[level], tokens)
        projection = _linear(c, c, positions[level])
        return _sum(_norm(c), projection, projection, *[block] * count)

    last = len(widths) - 1
    parts = [
        _conv(shape.latent_channels, widths[0], positions[0]),
        _linear(widths[0], time),
        _linear(time, time),
        _linear(shape.adm_dim, time),
        _linear(time, time),
    ]
    current, skips = widths[0], [widths[0]]
    for level, width in enumerate(widths):
        for j in range(shape.topology.resnets):
            parts.append(_resnet(current, width, time, positions[level]))
            parts.append(stack(f"down_blocks.{level}.attentions.{j}", level))
            current = width
            skips.append(current)
        if level < last:
            parts.append(_conv(current, current, positions[level + 1]))
            skips.append(current)
    parts += [_resnet(current, current, time, positions[last])] * shape.topology.middle
    parts.append(stack("mid_block.attentions.0", last))
    for up, level in enumerate(range(last, -1, -1)):
        for j in range(shape.topology.resnets + 1):
            parts.append(_resnet(current + skips.pop(), widths[level], time, positions[level]))
            parts.append(stack(f"up_blocks.{up}.attentions.{j}", level))
            current = widths[level]
        if level:
            parts.append(_conv(current, current, positions[level - 1]))
    parts += [_norm(current), _conv(current, shape.latent_channels, positions[0])]
    return _sum(*parts)
