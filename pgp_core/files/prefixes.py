"""What trainers, compilers and checkpoints put before the names of weights. This is the one place that knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from .weights import WeightsFile

#: Put anywhere into a name, by torch.compile, FSDP, checkpointing and DeepSpeed.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
#: Averages over training.
_AVERAGES = ("ema_model", "model_ema", "unet_ema", "ema_unet", "ema")
#: What may stand before a name, in any order and number.
_WORDS = (
    *("module", "model", "diffusion_model", "unet", "net", "network", "denoiser", "online_model", "base_model"),
    *("state_dict", "model_state_dict", "params", "weights", "pipeline", "pipe", "student", "generator", "backbone"),
    *("first_stage_model", "vae", "autoencoder", "text_encoder", "text_encoder_2"),
    *_AVERAGES,
)
_BEFORE = "(?:(?:" + "|".join(_WORDS) + r")\.)*"
#: LDM's own averages, whose names have lost their dots: nothing reads them.
_SQUASHED = "model_ema.diffusion_model"


@dataclass(frozen=True)
class Home:
    """Where a part stands in a file.

    Attributes:
        prefix: what its names begin with; may be empty.
        others: prefixes of what is not taken, though it is of the same kind.
        note: what is to be said of the choice, or empty.
    """

    prefix: str = ""
    others: tuple[str, ...] = ()
    note: str = ""

    def holds(self, name: str) -> bool:
        """Whether one of the file's names is in this part."""
        return name.startswith(self.prefix) and not (self.others and name.startswith(self.others))


def unwrapped(name: str) -> str:
    """A name without what wrappers of modules add: ``_orig_mod.`` anywhere, ``module.`` at its beginning."""
    parts = [p for p in name.split(".") if p not in _WRAPPERS]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def without_wrappers(file: WeightsFile) -> WeightsFile:
    """A file's weights by their :func:`unwrapped` names.

    Raises:
        CheckpointError: if two tensors then have one name.
    """
    names: dict[str, str] = {}
    for name in file.shapes:
        bare = unwrapped(name)
        if bare in names:
            raise CheckpointError(f"{file.name} holds {bare} twice, as {names[bare]} and as {name}: get it again")
        names[bare] = name
    return _renamed(file, names)


def find_home(names: Iterable[str], heads: tuple[str, ...]) -> Home | None:
    """Where the part stands whose names begin with one of ``heads``; None where there is none.

    Weights as they were trained last are taken before their average, as ComfyUI and diffusers do, unless the
    average holds more; of several of a kind the one with the most tensors.
    """
    names = list(names)
    pattern = re.compile(f"({_BEFORE})(?:{'|'.join(map(re.escape, heads))})")
    found = Counter(m[1] for name in names if (m := pattern.match(name)))
    if not found:
        return None
    order = sorted(found, key=lambda p: (-found[p], _is_average(p), len(p), p))
    chosen = order[0]
    averaged = any(name.startswith(_SQUASHED) for name in names) or any(map(_is_average, found))
    note = ""
    if averaged and not _is_average(chosen):
        note = "it holds averaged (EMA) weights too: the others are taken, as ComfyUI does"
    elif len(order) > 1:
        also = ", ".join(repr(p) for p in order[1:4])
        note = f"it holds several models of this kind: the one under {chosen!r} is taken, not {also}"
    # Where this part stands inside another, that one's prefix is no sign of a foreign name.
    return Home(chosen, tuple(p for p in order if p.startswith(chosen) and p != chosen), note)


def _is_average(prefix: str) -> bool:
    return any(word in _AVERAGES for word in prefix.split("."))


def beneath(file: WeightsFile, home: Home) -> WeightsFile:
    """A part of a file, by the names without its prefix."""
    names = {name.removeprefix(home.prefix): name for name in file.shapes if home.holds(name)}
    return _renamed(file, names)


def _renamed(file: WeightsFile, names: dict[str, str]) -> WeightsFile:
    """Some of a file's weights by other names; the file itself where that changes nothing.

    Args:
        names: new ones, and the file's.
    """
    if len(names) == len(file.shapes) and all(new == name for new, name in names.items()):
        return file
    return replace(
        file,
        shapes={new: file.shapes[name] for new, name in names.items()},
        floating=frozenset(new for new, name in names.items() if name in file.floating),
        read=lambda new: file.read(names[new]),
        dtypes={new: file.dtypes[name] for new, name in names.items() if name in file.dtypes},
    )
