"""Textures that repeat through the nodes, and numbers and pictures that are none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.sample
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.canvas import PGPDiffSRCanvas
from pgp_pack.nodes.color_fix import PGPDiffSRColorFix
from pgp_pack.nodes.comfy_backbone.nano import load_nano
from pgp_pack.nodes.difficulty import PGPDiffSRDifficulty
from pgp_pack.nodes.plotting import PGPDiffSRPhaseOnly
from pgp_pack.pgp_core.codecs.decoder_file import write_decoder
from pgp_pack.pgp_core.restorers.nano import model as nano_files
from pgp_pack.pgp_core.tiling import Split

from . import scene
from .raised import answers

SEED, STEPS, CFG = 4, 2, 1.5
#: Steps and side of the tiles.
RUNS = {"both": ((STEPS, 0), (STEPS, 192), (1, 0)), "x": ((STEPS, 0),), "none": ((1, 0),)}
NAN, INF = float("nan"), float("inf")


def check_wrap(out: Path) -> Any:
    """A picture whose height cannot repeat in latents, by the nodes of the shipped workflows."""
    model, patch, vae, positive, negative = comfy_backbone.load_nano()
    own = nano_files.Files(out.parent / "own-nano")
    shutil.copytree(nano_files.FOLDER, own.folder, dirs_exist_ok=True)
    write_decoder(own.folder / own.decoder, scene.drawn_decoder())
    redrawing = load_nano(own)[2]
    picture = torch.rand(1, 12, 16, 3, generator=torch.Generator().manual_seed(2))
    tensors = {"picture": picture}
    for wrap, runs in RUNS.items():
        canvas, width, height, enlarged = PGPDiffSRCanvas.execute(picture, "scale", 4.0, 2048, "pgp-nano", wrap).args
        tensors[f"enlarged {wrap}"] = enlarged
        z_l = vae.encode(canvas)
        for steps, tile in runs:
            guided = comfy_backbone.apply_guidance(model, patch, canvas, 1.0, 0.0, 1.0)
            if steps == 1:
                guided = scene.with_lora(guided, nano_files.FOLDER / nano_files.S1_FILE)[0]
                tiled = comfy_backbone.tile_model(guided, tile, 64, wrap=wrap)
                sampler, sigmas = comfy_backbone.one_step_sampler(tiled, nano_files.S1_TIMESTEP)
                # fmt: off
                z_h = comfy.sample.sample_custom(
                    tiled, torch.zeros_like(z_l), 1.0, sampler, sigmas, positive, positive, z_l, disable_pbar=True,
                    seed=SEED,
                )
            else:
                tiled = comfy_backbone.tile_model(guided, tile, 64, wrap=wrap)
                zero = torch.zeros_like(z_l)
                z_h = z_l + comfy.sample.sample(
                    tiled,
                    comfy.sample.prepare_noise(zero, SEED),
                    steps,
                    CFG,
                    "euler",
                    "ddim_uniform",
                    positive,
                    negative,
                    zero,
                    denoise=1.0,
                    seed=SEED,
                    disable_pbar=True,
                )
                # fmt: on
            for kind, codec in (("", vae), (" own", redrawing)):
                decoded = codec.decode(z_h.clone())
                fixed = PGPDiffSRColorFix.execute(decoded, canvas, "wavelet", width, height, wrap).args[0]
                tensors[f"{wrap} {steps} {tile}{kind}"] = fixed
    scene.save(out, **tensors)
    plain = PGPDiffSRCanvas.execute(picture, "scale", 4.0, 2048, "pgp-nano").args[0]
    wrapped = PGPDiffSRCanvas.execute(picture, "scale", 4.0, 2048, "pgp-nano", "both").args[0]

    def sampled(canvas: torch.Tensor, wrap: str, guide: bool = True) -> Any:
        z = torch.zeros_like(vae.encode(canvas))
        one = comfy_backbone.apply_guidance(model, patch, canvas, 1.0, 0.0, 1.0) if guide else model
        one = comfy_backbone.tile_model(one, wrap=wrap)
        # fmt: off
        return comfy.sample.sample(
            one, z, 1, 1.0, "euler", "ddim_uniform", positive, negative, z, denoise=1.0, seed=0, disable_pbar=True
        )
        # fmt: on

    return answers(
        {
            "a canvas that does not repeat": lambda: sampled(plain, "both"),
            "one that repeats otherwise": lambda: sampled(wrapped[:, :, 4:-4], "both"),
            "no room for margins": lambda: sampled(plain[:, :64, :64], "both", guide=False),
            "colours without margins": lambda: PGPDiffSRColorFix.execute(plain, plain, "none", 64, 48, "both"),
            "another reference": lambda: PGPDiffSRColorFix.execute(wrapped, picture, "none", 64, 48, "both"),
            "another axis": lambda: comfy_backbone.tile_model(model, wrap="z"),
        }
    )


def check_numbers(_out: Path) -> Any:
    """NaN, infinity and the wrong kind, as other nodes' outputs bring them past a widget's limits."""
    nano = scene.Nano()
    picture = scene.pictures(1)
    tiled = comfy_backbone.tile_model(nano.model, 64, 16)
    latent, mask = {"samples": torch.zeros(1, 48, 17, 13)}, torch.zeros(1, 8, 8)

    def adaptive(starts: tuple[float, float] = (0.2, 0.4), easy: float = 0.4, common: int = 2) -> Any:
        return comfy_backbone.adaptive_model(tiled, mask, latent, Split(easy, 0.3), starts, common)

    def canvas(scale: Any = 4.0, by: str = "scale", pixels: Any = 64) -> Any:
        return PGPDiffSRCanvas.execute(picture, by, scale, pixels, "pgp-nano")

    cases: dict[str, Callable[[], Any]] = {}
    for bad in (NAN, INF, -INF, "1"):
        cases |= {
            f"strength {bad}": lambda bad=bad: nano.guided(picture, bad),
            f"start_percent {bad}": lambda bad=bad: nano.guided(picture, 1.0, bad),
            f"end_percent {bad}": lambda bad=bad: nano.guided(picture, 1.0, 0.0, bad),
            f"easy_start {bad}": lambda bad=bad: adaptive((bad, 0.4)),
            f"medium_start {bad}": lambda bad=bad: adaptive((0.2, bad)),
            f"easy {bad}": lambda bad=bad: adaptive(easy=bad),
            f"scale {bad}": lambda bad=bad: canvas(bad),
        }
    for bad in (-1, 2.5, NAN, 10**30):
        cases |= {
            f"tile {bad}": lambda bad=bad: comfy_backbone.tile_model(nano.model, bad),
            f"overlap {bad}": lambda bad=bad: comfy_backbone.tile_model(nano.model, 0, bad),
            f"frames {bad}": lambda bad=bad: comfy_backbone.tile_model(nano.model, frames=bad),
            f"width {bad}": lambda bad=bad: canvas(by="width", pixels=bad),
            f"crop {bad}": lambda bad=bad: PGPDiffSRColorFix.execute(picture, picture, "none", bad, 0),
        }
    cases["common 0"] = lambda: adaptive(common=0)
    return answers(cases)


def check_images(_out: Path) -> Any:
    """Pictures with NaN, of other channels, of no size, and beyond 0 and 1."""
    nano, good = scene.Nano(), scene.pictures(1, batch=3)
    nodes: dict[str, Callable[[torch.Tensor], Any]] = {
        "Canvas": lambda x: PGPDiffSRCanvas.execute(x, "scale", 1.0, 64, "pgp-nano").args[0],
        "Apply": lambda x: nano.guided(x).model_options,
        "Colour Fix": lambda x: PGPDiffSRColorFix.execute(x, x, "wavelet").args[0],
        "Colour Fix's reference": lambda x: PGPDiffSRColorFix.execute(good, x, "wavelet").args[0],
        "Difficulty": lambda x: PGPDiffSRDifficulty.execute(x).args[0],
        "Phase Only": lambda x: PGPDiffSRPhaseOnly.execute(x).args[0],
    }
    nan, inf = good.clone(), good.clone()
    nan[1, 3, 4, 1], inf[2, 0, 0, 0] = NAN, -INF
    bad = {
        "NaN": nan,
        "infinity": inf,
        "two channels": good[..., :2],
        "five channels": torch.cat([good, good[..., :2]], -1),
        "no picture": good[:0],
        "no pixel": good[:, :0],
        "whole numbers": good.to(torch.uint8),
        "no batch": good[0],
    }
    cases = {f"{n}, {b}": lambda node=node, x=x: node(x) for n, node in nodes.items() for b, x in bad.items()}
    with scene.Messages() as messages:
        bright, clipped = good * 4 - 1, (good * 4 - 1).clamp(0, 1)
        same = {n: _same(node(bright), node(clipped)) for n, node in nodes.items() if n != "Apply"}
        told = [m for m in messages.lines if "clipped" in m]
        messages.lines.clear()
        nodes["Canvas"](good * 1.02 - 0.01)
        quiet = messages.lines.copy()
    grey = good[..., :1]
    found = PGPDiffSRCanvas.execute(grey, "scale", 2.0, 64, "pgp-nano").args[0]
    as_rgb = PGPDiffSRCanvas.execute(grey.expand(-1, -1, -1, 3), "scale", 2.0, 64, "pgp-nano").args[0]
    return {
        "answers": answers(cases),
        "clipped": same,
        "told": told,
        "quiet": quiet,
        "grey is RGB": torch.equal(found, as_rgb),
        "grey fixed": PGPDiffSRColorFix.execute(good, grey, "wavelet").args[0].shape[-1],
    }


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b)
