"""FaithDiff's published file: a whole SDXL UNet, its LQ encoder and alignment, told apart by prefix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from ..errors import GuidanceError, name_some
from ..files.prefixes import Home, beneath, find_home
from ..files.weights import WeightsFile, count_numbered
from ..files.what_it_is import FAITHDIFF_GROUPS, described
from .module import KEY_PREFIX, METADATA_KEY, Guidance, GuidanceSpec, Site

#: In the order of the authors' file; ``agg_net`` has no weights.
ENCODER, CONDITION, BLOCKS, PROJECTION = GROUPS = FAITHDIFF_GROUPS

_BLOCK_NAMES = {
    "ln_1.": "ln_1.",
    "ln_2.": "ln_2.",
    "attn.out_proj.": "out.",
    "mlp.c_fc.": "c_fc.",
    "mlp.c_proj.": "c_proj.",
}

SITE = Site("conv_in", 320, 0, 8, "alignment")


def guidance_spec() -> GuidanceSpec:
    """FaithDiff's guidance: LQ encoder and alignment after ``conv_in``."""
    return GuidanceSpec(sites=(SITE,))


def is_faithdiff(names: Iterable[str]) -> bool:
    """Whether a file has any of FaithDiff's own groups, under whatever prefix."""
    return _home(names) is not None


def _home(names: Iterable[str]) -> Home | None:
    """Where FaithDiff's own groups stand; SUPIR has a denoise_encoder too, in its VAE."""
    home = find_home(names, GROUPS)
    return None if home is None or "first_stage_model." in home.prefix else home


@dataclass(frozen=True)
class Extras:
    """FaithDiff's additions in a file.

    Attributes:
        spec: what they are.
        sources: guidance key (without ``pgp.``) to the file's key; :func:`value_path` says what to take of it.
    """

    spec: GuidanceSpec
    sources: Mapping[str, str]


def find_extras(file: WeightsFile) -> Extras:
    """The LQ encoder and alignment of a file, checked for completeness and shape.

    Raises:
        GuidanceError: naming the group that is missing or incomplete, or the key whose shape is wrong.
    """
    home = _home(file.shapes)
    if home is None:
        what = described(file.shapes)
        raise GuidanceError(
            f"{file.name} is no FaithDiff file{f': it holds {what}' if what else ''}, without "
            f"{ENCODER.rstrip('.')} and what belongs to it: choose FaithDiff.bin"
        )
    file, prefix = beneath(file, home), home.prefix
    groups = {g: {k for k in file.shapes if k.startswith(g)} for g in GROUPS}
    missing = [g.rstrip(".") for g, keys in groups.items() if not keys]
    if missing:
        raise GuidanceError(f"{file.name} is no complete FaithDiff file: it lacks {', '.join(missing)}")
    spec = _spec(file)
    sources = {_guidance_key(k): k for keys in groups.values() for k in keys if not _inert(k)}
    twin = Guidance(spec, device="meta")
    expected = {k: tuple(v.shape) for k, v in twin.state_dict().items()}
    absent, foreign = sorted(expected.keys() - sources.keys()), sorted(sources.keys() - expected.keys())
    if absent or foreign:
        what = f"lacks {name_some(absent)}" if absent else f"has foreign keys {name_some(sources[k] for k in foreign)}"
        raise GuidanceError(f"{file.name} is no complete FaithDiff file: it {what}")
    for key, shape in expected.items():
        found = file.shapes[sources[key]]
        if value_shape(sources[key], found) != shape:
            raise GuidanceError(f"{file.name} does not fit: {sources[key]} has shape {tuple(found)}")
        if sources[key] not in file.floating:
            raise GuidanceError(f"{file.name} does not fit: {sources[key]} holds no floating-point numbers")
    return Extras(spec, {k: prefix + sources[k] for k in expected})


def value_path(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """What the guidance takes of one of the file's tensors: of stacked queries, keys and values the values."""
    return tensor.chunk(3)[2] if _is_stacked(key) else tensor


def value_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of :func:`value_path`'s result; the shape itself where it cannot be cut in three."""
    return (shape[0] // 3, *shape[1:]) if _is_stacked(key) and shape and shape[0] % 3 == 0 else tuple(shape)


def _is_stacked(key: str) -> bool:
    """Whether one of the file's tensors holds queries, keys and values stacked on each other."""
    return ".attn.in_proj_" in key


def _inert(key: str) -> bool:
    """Buffers that some trainers save."""
    return key.endswith((".position_ids", ".num_batches_tracked"))


def _guidance_key(key: str) -> str:
    if key.startswith(ENCODER):
        return "lq_encoder." + key[len(ENCODER) :]
    if key.startswith(CONDITION):
        return "alignment.embedding." + key[len(CONDITION) :]
    if key.startswith(PROJECTION):
        return "alignment.proj." + key[len(PROJECTION) :]
    number, _, tail = key[len(BLOCKS) :].partition(".")
    head = f"alignment.blocks.{number}."
    if tail.startswith("attn.in_proj_"):
        return f"{head}value.{tail[len('attn.in_proj_') :]}"
    for old, new in _BLOCK_NAMES.items():
        if tail.startswith(old):
            return head + new + tail[len(old) :]
    return head + tail


def _spec(file: WeightsFile) -> GuidanceSpec:
    """The spec that the file's own sizes say."""
    shapes = file.shapes
    levels = count_numbered(shapes, ENCODER + r"down_blocks\.(\d{1,3})\.")
    blocks = count_numbered(shapes, ENCODER + r"down_blocks\.0\.resnets\.(\d{1,3})\.")
    layers = count_numbered(shapes, BLOCKS + r"(\d{1,3})\.")
    widths = tuple(_first(shapes, f"{ENCODER}down_blocks.{i}.resnets.0.conv2.weight") for i in range(levels))
    channels = _first(shapes, PROJECTION + "weight")
    if not levels or not blocks or not layers or not channels or not all(widths):
        raise GuidanceError(f"{file.name} is no complete FaithDiff file: weights of its LQ encoder or alignment lack")
    site = replace(SITE, channels=channels, scale=2 ** (levels - 1))
    spec = GuidanceSpec(sites=(site,), encoder_channels=widths, encoder_blocks=blocks, alignment_layers=layers)
    # What is read back is checked: sizes come from the file.
    return GuidanceSpec.from_metadata({METADATA_KEY: json.dumps(spec.to_json())}, file.name)


def _first(shapes: Mapping[str, tuple[int, ...]], key: str) -> int:
    shape = shapes.get(key, ())
    return shape[0] if shape else 0


def load_extras(file: WeightsFile) -> tuple[GuidanceSpec, dict[str, torch.Tensor]]:
    """FaithDiff's guidance straight from its file: the spec, and weights as they stand in a guidance file.

    Raises:
        GuidanceError: see :func:`find_extras`.
    """
    extras = find_extras(file)
    weights = {KEY_PREFIX + k: value_path(s, file.read(s)).clone() for k, s in extras.sources.items()}
    return extras.spec, weights
