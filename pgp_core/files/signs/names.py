"""What a table of signs is made of: kinds, and what of a file's names and shapes they are told by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Words that may stand before a name, one or more of them; what follows is looked at too.
_BEFORE = re.compile(
    r"(?:model|diffusion_model|transformer|module|net|unet|vae|first_stage_model|conditioner|cond_stage_model|embedders"
    r"|text_encoders?|text_encoder_\d|text_model|vision_model|clip_[lgh]|t5xxl|qwen\w*|language_model|state_dict|params|params_ema|params-ema"
    r"|model_ema|ema|dit|generator|backbone|\d{1,2})\."
)
_MOST_WORDS = 6

CHOOSE = "choose the UNet's file or a whole checkpoint"
NEEDS_SDXL = "PGP-DiffSR needs an SDXL-shaped UNet"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        what: in words, with an article.
        goes: what it is for, where that can be said: "for --lora …".
        instead: what to do where a UNet was wanted.
    """

    what: str
    goes: str = ""
    instead: str = CHOOSE

    @property
    def advice(self) -> str:
        """What to do with it where a UNet was wanted."""
        return f"{self.instead}; this one is {self.goes}" if self.goes else self.instead


class Names:
    """A file's tensors by their names, with and without the words that may stand before those.

    Args:
        tensors: names and shapes, or names alone; then no sign that asks for a size is seen.
    """

    def __init__(self, tensors: Mapping[str, tuple[int, ...]] | Iterable[str]):
        self.shapes: Mapping[str, tuple[int, ...]] = tensors if isinstance(tensors, Mapping) else {}
        self._full: dict[str, str] = {}
        for full in sorted(tensors):
            name, words = full, 0
            self._full[full] = full
            while words < _MOST_WORDS and (before := _BEFORE.match(name)):
                name, words = name[before.end() :], words + 1
                self._full.setdefault(name, full)

    def __contains__(self, name: str) -> bool:
        return name in self._full

    def any(self, pattern: str) -> bool:
        """Whether a name begins as a pattern says."""
        compiled = re.compile(pattern)
        return any(compiled.match(name) for name in self._full)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape; None where there is none of this name, or shapes are not known."""
        return self.shapes.get(self._full.get(name, ""))

    def size(self, name: str, axis: int) -> int | None:
        """One side of a tensor, or None."""
        shape = self.shape(name)
        return shape[axis] if shape is not None and len(shape) > axis else None


@dataclass(frozen=True)
class Sign:
    """What one kind is told by; all of it holds.

    Attributes:
        what: in words, see :class:`Kind`.
        has: names that are all there.
        like: patterns, of each of which there is a name; matched from its beginning.
        lacks: names that are not there.
        sizes: sides of tensors: name, axis, size.
        ranks: how many sides tensors have.
    """

    what: str
    has: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int, int], ...] = ()
    ranks: tuple[tuple[str, int], ...] = ()

    def holds(self, names: Names) -> bool:
        """Whether a file shows it."""
        return (
            all(name in names for name in self.has)
            and not any(name in names for name in self.lacks)
            and all(names.size(name, axis) == size for name, axis, size in self.sizes)
            and all(len(names.shape(name) or ()) == rank for name, rank in self.ranks)
            and all(names.any(pattern) for pattern in self.like)
        )


def first(signs: Iterable[Sign], names: Names) -> str | None:
    """What the first sign says that a file shows."""
    return next((sign.what for sign in signs if sign.holds(names)), None)
