"""What text encoders cost, from their files' headers: once a model is loaded, with its prompts, they are gone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import PGPError
from ..files.prefixes import beneath, find_home
from ..files.weights import open_weights
from ..restorers.given import Given
from .macs import Macs

_FOLDERS = ("text_encoder", "text_encoder_2")
#: CLIP's, where a file does not say how many it has places for.
_TOKENS = 77
_PLACES = "embeddings.position_embedding.weight"


@dataclass(frozen=True)
class TextEncoders:
    """Plain numbers.

    Attributes:
        parameters: of all.
        macs: of one prompt.
    """

    parameters: int
    macs: Macs


def text_encoders(given: Given) -> TextEncoders | None:
    """Those that encode the prompts of a model; None where prompts are saved, as nano's are."""
    if given.bundled or given.base is None or not given.base.is_dir() or given.conditioning is not None:
        return None
    parameters, macs = 0, Macs()
    for name in _FOLDERS:
        if not (given.base / name).is_dir():
            continue
        try:
            found = _one(given, name)
        except PGPError:
            # Loading has said already what is wrong with it.
            return None
        parameters += found.parameters
        macs.dense += found.macs.dense
        macs.attention += found.macs.attention
    return TextEncoders(parameters, macs) if parameters else None


def _one(given: Given, name: str) -> TextEncoders:
    assert given.base is not None
    with open_weights(given.base / name, name) as file:
        home = find_home(file.shapes, ("text_model.",)) or find_home(file.shapes, ("embeddings.",))
        part = beneath(file, home) if home else file
        # The others are tables of positions, which are no parameters.
        shapes = {k: tuple(part.shapes[k]) for k in part.shapes if k in part.floating}
    tokens = next((s[0] for k, s in shapes.items() if k.endswith(_PLACES)), _TOKENS)
    macs = Macs()
    for key, shape in shapes.items():
        if len(shape) != 2 or ".embeddings." in f".{key}":
            continue
        # The pooled vector is of one token.
        macs.dense += math.prod(shape) * (1 if "text_projection" in key else tokens)
        if key.endswith("self_attn.q_proj.weight"):
            macs.attention += 2 * tokens * tokens * shape[0]
    return TextEncoders(sum(math.prod(s) for s in shapes.values()), macs)
