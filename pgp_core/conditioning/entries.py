"""Saved CONDITIONING: what a text encoder made of one prompt, in a file that needs no encoder any more.

One file holds one CONDITIONING, what one link of ComfyUI's graph carries: a list of entries ``[context, options]``.
Contexts and options that are tensors are the file's tensors, ``0.context`` and ``0.options.<name>`` for the first
entry; everything else stands as JSON in the metadata under ``pgp.conditioning``:

    {"format": "pgp-diffsr/conditioning", "version": 1, "prompt": "...", "encoder_sha256": null,
     "created_by": "pgp-diffsr 0.1.0", "entries": [{"values": {"width": 1024}, "tensors": ["pooled_output"]}]}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import ConditioningError, name_some
from ..files.checkpoints import read_safetensors, write_safetensors
from ..files.json_format import check_format, parse_metadata
from ..files.what_it_is import described
from .checks import SIZES, check_entry, describe
from .conditioning import Conditioning

FORMAT = "pgp-diffsr/conditioning"
VERSION = 1
METADATA_KEY = "pgp.conditioning"

#: Options that SDXL's UNet has no input for: they are there for other models.
_UNUSED_BY_SDXL = frozenset(
    {"aesthetic_score", "attention_mask", "guidance", "prompt_type", "t5xxl_ids", "t5xxl_weights"}
)

#: Of JSON, in characters: far beyond any prompt, and below what a safetensors header takes.
_LONGEST = 1_000_000

#: What else a file may be, by a key of its metadata.
_OTHER_METADATA = {"pgp.guidance": "PGP-DiffSR guidance", "pgp.plan": "a pruned UNet"}

#: ``[context, options]``, as ComfyUI has it; tuples are taken too.
Entry = Sequence[Any]


@dataclass(frozen=True)
class SavedConditioning:
    """What a file holds.

    Attributes:
        entries: ``[[context, options], ...]``, ComfyUI's CONDITIONING; tensors on the CPU.
        prompt: the text that was encoded; empty if the file does not say.
        encoder_sha256: of the text encoder's file, 64 hex digits, or None.
        created_by: program and version that wrote the file; empty if the file does not say.
    """

    entries: list[list[Any]]
    prompt: str = ""
    encoder_sha256: str | None = None
    created_by: str = ""


def save(
    path: str | os.PathLike[str],
    entries: Sequence[Entry],
    prompt: str = "",
    encoder_sha256: str | None = None,
) -> None:
    """Write a CONDITIONING; the file is there whole or not at all, and :func:`load` gives equal bits back.

    Args:
        entries: at least one ``[context, options]``. A context is ``(B, tokens, dim)`` in a float dtype; options
            are tensors (``pooled_output``: ``(B or 1, dim)``) and values of JSON (None, bool, int, float, str,
            lists and dicts of these).
        prompt: stored for people; nothing reads it back into an encoder.
        encoder_sha256: hash of the text encoder's file, if it is known.

    Raises:
        ConditioningError: if an entry has hooks, control, a mask, an area or anything else that a file cannot
            keep, is of another shape, or is not finite.
        CheckpointError: if the file cannot be written; nothing is left behind.
    """
    source = "this conditioning"
    if not entries:
        raise ConditioningError(f"{source} is empty: there is nothing to save")
    tensors: dict[str, torch.Tensor] = {}
    listed = []
    for i, entry in enumerate(entries):
        where = _where(source, i, len(entries))
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[1], Mapping):
            raise ConditioningError(f"{where} is no [context, options] pair: give what a text encode node outputs")
        context, options = entry
        check_entry(context, options, where)
        tensors[f"{i}.context"] = _plain_cpu(context)
        names = [name for name, value in options.items() if isinstance(value, torch.Tensor)]
        tensors.update((f"{i}.options.{name}", _plain_cpu(options[name])) for name in names)
        listed.append({"values": {k: v for k, v in options.items() if k not in names}, "tensors": names})
    header = {
        "format": FORMAT,
        "version": VERSION,
        "prompt": prompt,
        "encoder_sha256": encoder_sha256,
        "created_by": f"pgp-diffsr {__version__}",
        "entries": listed,
    }
    _check_header(header, source)
    text = json.dumps(header, allow_nan=False)
    if len(text) > _LONGEST:
        raise ConditioningError(
            f"the prompt and options of {source} take {len(text)} characters, a file keeps {_LONGEST}: shorten them"
        )
    write_safetensors(path, tensors, {METADATA_KEY: text})


def load(path: str | os.PathLike[str]) -> SavedConditioning:
    """Read what :func:`save` wrote, and check all of it.

    Raises:
        CheckpointError: if the file is missing, truncated or no safetensors.
        ConditioningError: if it is another kind of file, too new, lacks tensors or has foreign ones, or if an entry
            is one that :func:`save` would refuse.
    """
    source = Path(path).name
    stored, metadata = read_safetensors(path)
    header = _header(metadata, stored, source)
    # Cloned: on disk the tensors would change, or end the program, when another one writes to the file.
    tensors = {k: v.clone() for k, v in stored.items()}
    listed = header["entries"]
    expected = {f"{i}.context" for i in range(len(listed))}
    expected |= {f"{i}.options.{name}" for i, entry in enumerate(listed) for name in entry["tensors"]}
    if missing := expected - tensors.keys():
        raise ConditioningError(f"{source} is damaged: it lacks {name_some(map(repr, missing))}: get it again")
    if foreign := tensors.keys() - expected:
        raise ConditioningError(f"{source} has tensors that do not belong there: {name_some(map(repr, foreign))}")
    entries = []
    for i, entry in enumerate(listed):
        options = {**entry["values"], **{name: tensors[f"{i}.options.{name}"] for name in entry["tensors"]}}
        check_entry(tensors[f"{i}.context"], options, _where(source, i, len(listed)))
        entries.append([tensors[f"{i}.context"], options])
    return SavedConditioning(
        entries, header.get("prompt", ""), header.get("encoder_sha256"), header.get("created_by", "")
    )


def to_sampling(entries: Sequence[Entry], size: tuple[int, int], source: str = "this conditioning") -> Conditioning:
    """One prompt for SDXL's UNet, as diffusers' and ours take it.

    Where an entry has no sizes, original and target size are the canvas's, and crop is 0; a target size alone that is
    missing is the original's. ComfyUI takes the latent's size times 8 there, which is the canvas with SDXL's VAE and
    twice the canvas with nano's; called without a latent, its model has 768.

    Args:
        entries: of :class:`SavedConditioning`; exactly one, for one picture.
        size: the canvas's height and width in pixels.
        source: what to call the conditioning in errors.

    Returns:
        context ``(1, tokens, dim)``, pooled ``(1, dim)``, and ``time_ids`` in SDXL's order: original height and width,
        crop from the top and left, target height and width.

    Raises:
        ConditioningError: if there is more than one entry or picture, no pooled vector, or an option that changes
            sampling in ComfyUI and has no counterpart here.
    """
    if len(entries) != 1:
        raise ConditioningError(
            f"{source} has {len(entries)} entries, the command line takes one: save it before it is combined"
        )
    context, options = entries[0]
    check_entry(context, options, source)
    if len(context) != 1:
        raise ConditioningError(f"{source} is for {len(context)} pictures at once, the command line takes one")
    pooled = options.get("pooled_output")
    if not isinstance(pooled, torch.Tensor):
        raise ConditioningError(f"{source} has no pooled vector: encode the prompt with SDXL's text encoders")
    partly = options.get("start_percent", 0) > 0 or options.get("end_percent", 1) < 1
    if partly or options.get("strength", 1) <= 0:
        raise ConditioningError(
            f"{source} acts in a part of the sampling only, which the command line cannot do: save it before that"
        )
    known = {"pooled_output", "start_percent", "end_percent", "strength", *SIZES, *_UNUSED_BY_SDXL}
    if unknown := options.keys() - known:
        raise ConditioningError(f"{source} has options that SDXL does not take: {name_some(map(repr, unknown))}")
    if any(side < 1 for side in size):
        raise ConditioningError(f"a canvas has at least one pixel, not {size[1]} x {size[0]}")
    height, width = options.get("height", size[0]), options.get("width", size[1])
    ids = (
        height,
        width,
        options.get("crop_h", 0),
        options.get("crop_w", 0),
        options.get("target_height", height),
        options.get("target_width", width),
    )
    return Conditioning.of_prompt(context, pooled, [float(i) for i in ids])


def _header(metadata: Mapping[str, str], tensors: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The metadata's JSON, checked."""
    text = metadata.get(METADATA_KEY)
    if text is None:
        kind = next((kind for key, kind in _OTHER_METADATA.items() if key in metadata), None)
        kind = kind or described({k: tuple(v.shape) for k, v in tensors.items()})
        what = f"it is {kind}" if kind else f'its metadata has no "{METADATA_KEY}"'
        raise ConditioningError(f"{source} is no saved conditioning: {what}")
    header = parse_metadata(text, METADATA_KEY, source, ConditioningError)
    header = check_format(header, FORMAT, VERSION, source, "saved conditioning", ConditioningError)
    _check_header(header, source)
    return header


def _check_header(header: Mapping[str, Any], source: str) -> None:
    for name in ("prompt", "created_by"):
        if not isinstance(header.get(name, ""), str):
            raise ConditioningError(f'"{name}" of {source} must be text, not {describe(header[name])}')
    digest = header.get("encoder_sha256")
    if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ConditioningError(f'"encoder_sha256" of {source} must be 64 hex digits or null, not {describe(digest)}')
    listed = header.get("entries")
    if not isinstance(listed, list) or not listed:
        raise ConditioningError(f'"entries" of {source} must be a list of at least one, not {describe(listed)}')
    for i, entry in enumerate(listed):
        where = _where(source, i, len(listed))
        values, names = (entry.get("values"), entry.get("tensors")) if isinstance(entry, dict) else (None, None)
        if not isinstance(values, dict) or not isinstance(names, list) or any(not isinstance(n, str) for n in names):
            raise ConditioningError(f'{where} must have "values" by name and "tensors", a list of names')
        if len(set(names)) != len(names) or values.keys() & set(names):
            raise ConditioningError(f"{where} has an option twice")


def _where(source: str, index: int, count: int) -> str:
    return source if count == 1 else f"entry {index + 1} of {source}"


def _plain_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu").contiguous()
