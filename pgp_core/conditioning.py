"""Saved CONDITIONING: what a text encoder made of one prompt, in a file that needs no encoder any more.

One file holds one CONDITIONING, as one link of ComfyUI's graph does: a list of entries ``[context, options]``.
Contexts and options that are tensors are the file's tensors, ``0.context`` and ``0.options.<name>`` for the first
entry; everything else stands as JSON in the metadata under ``pgp.conditioning``:

    {"format": "pgp-diffsr/conditioning", "version": 1, "prompt": "...", "encoder_sha256": null,
     "created_by": "pgp-diffsr 0.1.0", "entries": [{"values": {"width": 1024}, "tensors": ["pooled_output"]}]}
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .checkpoints import read_safetensors, write_safetensors
from .errors import ConditioningError, name_some
from .sampling import Conditioning

FORMAT = "pgp-diffsr/conditioning"
VERSION = 1
METADATA_KEY = "pgp.conditioning"

#: Options that point at other models, or at places in one picture: they mean nothing in another graph.
# fmt: off
REFUSED = frozenset({
    "hooks", "default", "control", "control_apply_to_uncond", "gligen", "reference_latents", "model_conds", "uuid",
    "mask", "mask_strength", "set_area_to_bounds", "area",
})
# fmt: on

#: Pixels, and the order in which SDXL takes them.
SIZES = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")

#: Options that SDXL's UNet has no input for: they are there for other models.
_UNUSED_BY_SDXL = frozenset(
    {"aesthetic_score", "attention_mask", "guidance", "prompt_type", "t5xxl_ids", "t5xxl_weights"}
)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = (*_FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

#: Far beyond any picture; an int that is no size does not get here.
_LARGEST_SIZE = 1_000_000

#: Of JSON, in characters: far beyond any prompt, and below what a safetensors header takes.
_LONGEST = 1_000_000

#: Lists in lists; JSON itself could go on until Python's stack ends.
_DEEPEST = 8

#: What else a file may be, by a key of its metadata or a piece of a tensor's name.
_OTHER_METADATA = {"pgp.guidance": "PGP-DiffSR guidance", "pgp.plan": "a pruned UNet"}
_OTHER_TENSORS = {
    "lora_": "a LoRA",
    "first_stage_model.": "a checkpoint",
    "input_blocks.": "a UNet",
    "down_blocks.": "a UNet or VAE in diffusers' keys",
    "text_model.": "a text encoder",
    "latent_tensor": "a saved latent",
    "clip_l": "an embedding",
}

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
        _check_entry(context, options, where)
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
        _check_entry(tensors[f"{i}.context"], options, _where(source, i, len(listed)))
        entries.append([tensors[f"{i}.context"], options])
    return SavedConditioning(
        entries, header.get("prompt", ""), header.get("encoder_sha256"), header.get("created_by", "")
    )


def to_sampling(entries: Sequence[Entry], size: tuple[int, int], source: str = "this conditioning") -> Conditioning:
    """One prompt for SDXL on diffusers' backbone.

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
    _check_entry(context, options, source)
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
    return Conditioning(context, pooled, tuple(float(i) for i in ids))  # type: ignore[arg-type]


# -- checks --------------------------------------------------------------------------------------------------


def _check_entry(context: Any, options: Mapping[str, Any], where: str) -> None:
    """What holds for entries before they are saved and after they are loaded alike."""
    for name in options:
        if not isinstance(name, str) or not name or not _is_text(name):
            raise ConditioningError(f"{where} has an option named {name!r}: a name must be text")
    if refused := REFUSED & options.keys():
        raise ConditioningError(
            f"{where} has {', '.join(sorted(refused))}, which no file can keep: save it before the node that adds it"
        )
    if not isinstance(context, torch.Tensor) or context.dtype not in _FLOATS or context.dim() != 3:
        raise ConditioningError(f"{where} needs a context of (batch, tokens, dim) floats, not {_describe(context)}")
    _check_tensor(context, f"the context of {where}")
    for name, value in options.items():
        what = f"{name!r} of {where}"
        if isinstance(value, torch.Tensor):
            _check_tensor(value, what)
        elif not _is_json(value):
            raise ConditioningError(
                f"{what} is {_describe(value)}, neither a tensor nor a plain finite value: "
                f"save the conditioning before the node that adds it"
            )
    _check_pooled(options.get("pooled_output"), len(context), where)
    for name in SIZES:
        if name in options and not _is_number(options[name], 0, _LARGEST_SIZE):
            raise ConditioningError(
                f"{name!r} of {where} must be 0 to {_LARGEST_SIZE} pixels, not {_describe(options[name])}"
            )
    for name in ("start_percent", "end_percent", "strength"):
        if name in options and not _is_number(options[name], -_LARGEST_SIZE, _LARGEST_SIZE):
            raise ConditioningError(f"{name!r} of {where} must be a number, not {_describe(options[name])}")


def _check_tensor(tensor: torch.Tensor, what: str) -> None:
    # Subclasses hold quantized weights, which are more than their numbers.
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided or tensor.is_meta:
        raise ConditioningError(f"{what} is no plain tensor, but {type(tensor).__name__}: a file cannot keep it")
    if tensor.dtype not in _DTYPES:
        raise ConditioningError(f"{what} is {_describe(tensor)}: a file keeps floats of 16 to 64 bits, ints and bools")
    if tensor.numel() == 0:
        raise ConditioningError(f"{what} is empty: it is {_describe(tensor)}")
    if tensor.dtype in _FLOATS and not bool(torch.isfinite(tensor).all()):
        raise ConditioningError(f"{what} is not finite: encode the prompt again, in float32 if it was in float16")


def _check_pooled(pooled: Any, batch: int, where: str) -> None:
    if pooled is None:
        return
    fits = isinstance(pooled, torch.Tensor) and pooled.dtype in _FLOATS and pooled.dim() == 2
    if not fits or len(pooled) not in (1, batch):
        raise ConditioningError(
            f"'pooled_output' of {where} must be (1, dim) or ({batch}, dim) floats, not {_describe(pooled)}"
        )


def _header(metadata: Mapping[str, str], tensors: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The metadata's JSON, checked."""
    text = metadata.get(METADATA_KEY)
    if text is None:
        kinds = [kind for key, kind in _OTHER_METADATA.items() if key in metadata]
        kinds += [kind for part, kind in _OTHER_TENSORS.items() if any(part in k for k in tensors)]
        what = f"it is {kinds[0]}" if kinds else f'its metadata has no "{METADATA_KEY}"'
        raise ConditioningError(f"{source} is no saved conditioning: {what}")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ConditioningError(f'{source}: its "{METADATA_KEY}" is not valid JSON: {e}') from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ConditioningError(f'{source} is no saved conditioning: its format is not "{FORMAT}"')
    version = header.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConditioningError(f"{source}: its version must be a positive whole number, not {_describe(version)}")
    if version > VERSION:
        raise ConditioningError(
            f"{source} has version {_describe(version)}, this release reads up to {VERSION}: update"
        )
    _check_header(header, source)
    return header


def _check_header(header: Mapping[str, Any], source: str) -> None:
    for name in ("prompt", "created_by"):
        if not isinstance(header.get(name, ""), str):
            raise ConditioningError(f'"{name}" of {source} must be text, not {_describe(header[name])}')
    digest = header.get("encoder_sha256")
    if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ConditioningError(f'"encoder_sha256" of {source} must be 64 hex digits or null, not {_describe(digest)}')
    listed = header.get("entries")
    if not isinstance(listed, list) or not listed:
        raise ConditioningError(f'"entries" of {source} must be a list of at least one, not {_describe(listed)}')
    for i, entry in enumerate(listed):
        where = _where(source, i, len(listed))
        values, names = (entry.get("values"), entry.get("tensors")) if isinstance(entry, dict) else (None, None)
        if not isinstance(values, dict) or not isinstance(names, list) or any(not isinstance(n, str) for n in names):
            raise ConditioningError(f'{where} must have "values" by name and "tensors", a list of names')
        if len(set(names)) != len(names) or values.keys() & set(names):
            raise ConditioningError(f"{where} has an option twice")


def _is_json(value: Any, depth: int = 0) -> bool:
    """Whether JSON gives an equal value back, finite and not nested too deep."""
    if isinstance(value, (list, dict)):
        if depth == _DEEPEST:
            return False
        if isinstance(value, dict):
            return all(isinstance(k, str) for k in value) and all(_is_json(v, depth + 1) for v in value.values())
        return all(_is_json(v, depth + 1) for v in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_text(name: str) -> bool:
    """Whether a file can hold it: half of a surrogate pair is none."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe(value: Any) -> str:
    """A value in a few words of one line."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    # Python refuses to print ints of more than 4300 digits.
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"an int of {value.bit_length()} bits"
    if value is None or isinstance(value, (int, float, str)):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    return f"a {type(value).__name__}"


def _where(source: str, index: int, count: int) -> str:
    return source if count == 1 else f"entry {index + 1} of {source}"


def _plain_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu").contiguous()
