"""What the tests of all restorers ask of a family: files in its authors' layout, and what must hold of them.

A family's maker is ``tests/restorers/makers/<family>.py``, with "_" for "-". It has ``VARIANTS``, the names of the ways
in which the family is used, and ``make(name, folder)``, which writes the files of one into a folder within that folder
and returns a :class:`Variant`. All variants share the folder, so what is there need not be made again.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from pgp_core.restorers.given import Given
from pgp_core.sampling.options import SampleOptions

MAKERS = Path(__file__).parents[1] / "restorers" / "makers"


@dataclass(frozen=True)
class Tiles:
    """What tiles may change.

    Attributes:
        size: of the canvas, height and width.
        tile, overlap: in pixels.
        mean, largest: by how much colours in [0, 1] may differ from those of the whole canvas, on average and anywhere.
        why: they differ at all, and by that much.
    """

    size: tuple[int, int]
    tile: int
    overlap: int
    mean: float
    largest: float
    why: str


@dataclass(frozen=True)
class Variant:
    """One way of using a family.

    Attributes:
        name: its own.
        given: what it is made of.
        what: words of what the file with the UNet is said to be.
        oracle: ``oracle(canvas, options, dtype)``, the authors' arithmetic without our code, in a precision.
        tiles: see there; None where its restorer has none.
        run: fields of SampleOptions for a short run; the rest is the recipe's.
        halves: by how much colours in [0, 1] may differ on average from the exact ones, by the name of a half precision
            that the family allows.
        largest: height and width of the largest picture that a test can afford.
        parts: files of weights in which a damaged tensor is an error, and what the names of such tensors begin with, by
            names for people.
        leaves_surplus: those of the parts whose readers leave alone what they do not know.
        contexts: for ComfyUI, tokens and pooled vectors: ``positive.context``, ``positive.pooled``, and of "negative".
        sizes: SDXL's micro-conditioning, where it is not the canvas's.
        vae: parameters of ComfyUI's autoencoder, where it is one.
        in_comfyui: None where ComfyUI has it as no MODEL; else what a graph there has beside what is given here:
            ``guidance``, ``loras``, ``timestep`` of the one step where it is not the family's; ``start``, where the
            family's own is made by core's nodes for twenty steps only.
    """

    name: str
    given: Given
    what: str
    oracle: Callable[[torch.Tensor, SampleOptions, torch.dtype], torch.Tensor]
    tiles: Tiles | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    halves: Mapping[str, float] = field(default_factory=dict)
    largest: tuple[int, int] = (17, 33)
    parts: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    leaves_surplus: frozenset[str] = frozenset()
    contexts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    sizes: tuple[float, ...] = ()
    vae: Mapping[str, Any] | None = None
    in_comfyui: Mapping[str, Any] | None = field(default_factory=dict)

    @property
    def unet(self) -> Path:
        """The file with the UNet."""
        path = self.given.model or self.given.base
        assert path is not None, f"{self.name} has no file by which it is found"
        return path

    def copied(self, folder: Path, old: Path | None = None, new: str = "") -> Given:
        """The same from another folder, with links to all files.

        Args:
            folder: must be new.
            old: a file that has another name there.
            new: which one.
        """
        root = self.unet.parent
        folder.mkdir(parents=True)
        for path in root.rglob("*"):
            if path.is_file() and path != old:
                target = folder / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)

        def moved(value: Any) -> Any:
            if not isinstance(value, Path):
                return value
            return folder / new if value == old else folder / value.relative_to(root)

        given = self.given
        changed = {f.name: moved(getattr(given, f.name)) for f in fields(given) if f.name != "loras"}
        return replace(given, **changed, loras=tuple(moved(p) for p in given.loras))


def maker_path(family: str) -> Path:
    """Where a family's maker is."""
    return MAKERS / f"{family.replace('-', '_')}.py"


def maker(family: str) -> ModuleType | None:
    """A family's maker, or None."""
    path, name = maker_path(family), f"maker_of_{family.replace('-', '_')}"
    if name not in sys.modules:
        if not path.is_file():
            return None
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def cases() -> list[tuple[str, str]]:
    """Family and variant of all that are made."""
    from pgp_core.restorers.finding import FAMILIES

    made = [(f.name, maker(f.name)) for f in FAMILIES]
    return [(family, name) for family, module in made if module is not None for name in module.VARIANTS]


def picture(height: int, width: int, seed: int = 5, batch: int = 1) -> torch.Tensor:
    """Smooth, with a little noise: ``(B, 3, H, W)``."""
    g = torch.Generator().manual_seed(seed)
    small, fine = torch.rand(batch, 3, 6, 6, generator=g), torch.rand(batch, 3, height, width, generator=g)
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")
    return (0.9 * large + 0.1 * fine).clamp(0, 1)


def arguments(given: Given) -> list[str]:
    """What is given, as options of the command line."""
    named = {
        "model": given.model, "base": given.base, "guidance": given.guidance, "vae": given.vae,
        "conditioning": given.conditioning, "negative-conditioning": given.negative_conditioning,
    }  # fmt: skip
    out = [text for name, path in named.items() if path is not None for text in (f"--{name}", str(path))]
    return [*out, *(text for path in given.loras for text in ("--lora", str(path)))]


def command(variant: Variant, source: Path, out: Path, scale: float, given: Given | None = None) -> list[str]:
    """A whole command line for a short run."""
    run = ["--one-step"] if variant.given.one_step else [f"--{k}={v}" for k, v in variant.run.items()]
    options = ["-o", str(out), f"--scale={scale:g}", "--json", "--device=cpu", *run]
    return ["upscale", str(source), *options, *arguments(given or variant.given)]


def photo(path: Path, height: int, width: int) -> Path:
    """A small PNG."""
    levels = (picture(height, width)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(path)
    return path


def read(path: Path) -> torch.Tensor:
    """A picture as ``(1, 3, H, W)``."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
