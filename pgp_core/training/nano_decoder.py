"""Nano's learned decoder in training: where it starts from, and the file that a run ends with.

It has a file of its own, of the format that ships, whatever else a run trains; so it goes from stage to stage.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..codecs.decoder import DecoderShape, PixelDecoder
from ..codecs.decoder_file import read_decoder, read_decoder_shape
from ..errors import ConfigError, TrainingError
from .config import RunConfig

FILE = "decoder.safetensors"
PART = "decoder"


def check(config: RunConfig) -> None:
    """Whether something would teach a decoder that is to be trained.

    Raises:
        ConfigError: if no term of the loss looks at pictures.
    """
    if PART not in config.model.train:
        return
    if config.s1 is None:
        raise ConfigError(
            f'{config.source}: model.train has "{PART}", which [loss] does not teach: it compares latents; [s1] does'
        )
    from .distillation import loss_config

    loss = loss_config(config).resolved()
    if not (loss.space == "picture" and (loss.l1 or loss.l2)) and not loss.edges and not loss.perceptual:
        raise ConfigError(
            f'{config.source}: model.train has "{PART}", which no term of [s1] teaches: give l1 or l2 with space = '
            '"picture", edges or perceptual a weight'
        )


def start(named: Path | None, before: list[Path]) -> Path | None:
    """The file that a run's decoder starts from; None where there is none.

    Args:
        named: the file that the configuration names.
        before: files of the run's start: the decoder that lies beside one goes on, of the last that has one.

    Raises:
        TrainingError: if the one that is named is not there.
    """
    if named is not None:
        if not named.is_file():
            raise TrainingError(f"{named} is not there: run what makes it first, or give another model.decoder")
        return named
    beside = [path.parent / FILE for path in before]
    return next((path for path in reversed(beside) if path.is_file()), None)


def shape(config: RunConfig, path: Path | None) -> DecoderShape | None:
    """How large a run's decoder is; None where it has none.

    Raises:
        CheckpointError: if its file is damaged.
    """
    if path is not None:
        return read_decoder_shape(path)
    model = config.model
    return DecoderShape(model.decoder_width, model.decoder_depth) if PART in model.train else None


def load(config: RunConfig, path: Path | None) -> PixelDecoder | None:
    """A run's decoder: the file's, or a fresh one where it is trained.

    Raises:
        CheckpointError: if its file is damaged.
    """
    if path is not None:
        return read_decoder(path)
    fresh = shape(config, None)
    if fresh is None:
        return None
    # What else is drawn does not depend on whether there is a decoder.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return PixelDecoder.fresh(fresh)
