"""safetensors files: headers, metadata, and what is kept in both."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from mutations.files import Raw

from pgp_core.conditioning import entries as saved
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.files.weights import open_weights
from pgp_core.guidance.module import METADATA_KEY, Guidance
from pgp_core.guidance.spec import GuidanceSpec
from pgp_core.unet import lora as loras
from pgp_core.unet.inspect import MODEL_KEY, PLAN_KEY, inspect_unet

from . import hostile
from .prepared import Prepared


def _small(raw: Raw, rng: random.Random) -> Raw:
    """A few of its tensors: what is changed is the header."""
    keys = rng.sample(sorted(raw.entries), min(4, len(raw.entries)))
    return Raw({k: raw.entries[k] for k in keys}, dict(raw.metadata))


def _write(path: Path, raw: Raw, rng: random.Random) -> None:
    """With a header that is changed as data, as text, or in its length."""
    how = rng.randrange(6)
    if how < 3:
        text = hostile.written(hostile.text_of(rng, hostile.changed(rng, raw.header())))
        raw.write(path, text=text + b" " * (-len(text) % 8))
    elif how == 3:
        raw.write(path, length=rng.choice((0, 1, 7, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)))
    else:
        raw.write(path)
        data = path.read_bytes()
        head = 8 + int.from_bytes(data[:8], "little")
        path.write_bytes(hostile.spoilt(rng, data, range(head)))


def safetensors(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A file of weights, by both readers."""
    path = folder / "weights.safetensors"
    whole = rng.randrange(4) == 0
    raw = prepared.unet if whole else _small(prepared.unet, rng)
    if whole:
        # The header is right, and what our own metadata says is not.
        raw = Raw(raw.entries, dict(raw.metadata))
        for key in (PLAN_KEY, MODEL_KEY):
            if rng.randrange(2):
                raw.metadata[key] = hostile.text_of(rng, hostile.changed(rng, json.loads(raw.metadata[key]), 1))
        raw.write(path)
    else:
        _write(path, raw, rng)
    with open_weights(path) as file:
        for key in file.shapes:
            file.read(key)
        info = inspect_unet(file)
        [info.ldm(k) + info.diffusers(k) for k in info.keys]
    read_safetensors(path)


def _with(raw: Raw, key: str, text: str, folder: Path) -> tuple[Path, Raw]:
    changed = Raw(dict(raw.entries), {**raw.metadata, key: text})
    path = folder / "file.safetensors"
    changed.write(path)
    return path, changed


def guidance(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A guidance file, to weights in place."""
    spec = json.loads(prepared.guidance.metadata[METADATA_KEY])
    text = hostile.text_of(rng, hostile.changed(rng, spec))
    path, _ = _with(prepared.guidance, METADATA_KEY, text, folder)
    with open_weights(path) as file:
        found = GuidanceSpec.from_metadata(file.metadata, file.name)
        GuidanceSpec.from_metadata({METADATA_KEY: json.dumps(found.to_json())})
        Guidance(found, device="meta").load({k: file.read(k) for k in file.shapes}, file.name)


def conditioning(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A saved CONDITIONING, as a prompt."""
    header: Any = json.loads(prepared.conditioning.metadata[saved.METADATA_KEY])
    text = hostile.text_of(rng, hostile.changed(rng, header))
    path, raw = _with(prepared.conditioning, saved.METADATA_KEY, text, folder)
    if rng.randrange(3) == 0:
        _write(path, raw, rng)
    found = saved.load(path)
    saved.save(folder / "again.safetensors", found.entries, found.prompt, found.encoder_sha256)
    saved.to_sampling(found.entries, (64, 64), path.name)


def lora(rng: random.Random, folder: Path, prepared: Prepared) -> None:
    """A LoRA's names."""
    raw = _small(prepared.lora, rng)
    if rng.randrange(4):
        keys = list(raw.entries)
        odd = rng.choice(keys)
        raw.entries[rng.choice(hostile.TEXTS).replace("\ud800", "") + rng.choice(("", ".alpha", ".lora_up.weight"))] = (
            raw.entries.pop(odd)
        )
    path = folder / "lora.safetensors"
    raw.write(path)
    weights, _ = read_safetensors(path)
    loras.diffusers_names(weights, path.name)
