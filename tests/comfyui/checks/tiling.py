"""PGP-DiffSR Tiling on nano: what tiles get, what they make together, and what goes wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replace

import comfy.controlnet
import comfy.latent_formats
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sample
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.nodes.comfy_backbone.tiling import full_precision
from pgp_pack.nodes.comfy_backbone.tiling.micro_conditioning import of_tile
from pgp_pack.pgp_core import nano as nano_files
from pgp_pack.pgp_core.guidance import Guidance, GuidanceSpec, Site
from pgp_pack.pgp_core.tiling import PHASES, Tile, grid

from . import dtypes, one_step, scene, state

#: Latent positions: tiles of 16 with an overlap of 8 lie at 0, 8 and 16 down, and at 0, 8 and 12 across.
HEIGHT, WIDTH = 33, 29
TILE, OVERLAP = 16 * scene.FACTOR, 8 * scene.FACTOR
PLACES = [(y, x) for y in (0, 8, 16) for x in (0, 8, 12)]


def wrapped(model: Any, wrapper: Any) -> Any:
    """The MODEL with another pack's wrapper."""
    copy = model.clone()
    copy.set_model_unet_function_wrapper(wrapper)
    return copy


def neighbours(_apply: Any, args: dict[str, Any]) -> torch.Tensor:
    """A model that looks no further than the next position."""
    x = args["input"]
    sums = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    result: torch.Tensor = torch.tanh(sums * 0.3 + args["c"]["c_crossattn"].mean())
    return result


class Wrapper:
    """Another pack's: counts, and does as it is told."""

    def __init__(self, act: Callable[..., torch.Tensor] | None = None) -> None:
        self.act = act or (lambda apply, args: apply(args["input"], args["timestep"], **args["c"]))
        self.places: list[tuple[int, int]] = []
        self.shapes: list[list[int]] = []
        self.moved = self.ended = 0

    def __call__(self, apply: Any, args: dict[str, Any]) -> torch.Tensor:
        tile = args["c"]["transformer_options"].get("pgp_tile")
        self.places.append((tile.y, tile.x) if tile else (-1, -1))
        self.shapes.append(list(args["input"].shape))
        return self.act(apply, args)

    def to(self, _: Any) -> Wrapper:
        self.moved += 1
        return self

    def models(self) -> list[Any]:
        return []

    def cleanup(self) -> None:
        self.ended += 1


def setting(batch: int = 1) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Nano, pictures and noise."""
    return scene.Nano(), scene.pictures(1, batch, HEIGHT, WIDTH), scene.noise(batch, HEIGHT, WIDTH)


def check_tiling_larger_than_the_picture(_out: Path) -> Any:
    nano, image, noise = setting(2)
    guided = nano.guided(image)
    expected = nano.sample(guided, noise, steps=2)
    before = state._structure(guided.model_options)
    results = {
        f"tile {tile}, {phase}": torch.equal(
            nano.sample(tile_model(guided, tile, phase=phase), noise, steps=2), expected
        )
        for tile in (0, 160)
        for phase in PHASES
    }
    results["MODEL unchanged"] = before == state._structure(guided.model_options)
    results["MODEL samples as before"] = torch.equal(nano.sample(guided, noise, steps=2), expected)
    return results


def check_tiling_without_context(_out: Path) -> Any:
    nano, _, noise = setting(2)
    model = wrapped(nano.model, neighbours)
    whole = nano.sample(model, noise)
    return {
        "difference": scene.difference(nano.sample(tile_model(model, TILE, OVERLAP), noise), whole) * nano_files.SCALE,
        "gaussian": scene.difference(nano.sample(tile_model(model, TILE, OVERLAP, "gaussian"), noise), whole),
        "size": float(whole.abs().max()) * nano_files.SCALE,
    }


def check_tiling_on_nano(_out: Path) -> Any:
    """Its own weights, at which PEAM is what it was trained to be."""
    nano = scene.Nano()
    nano.patch = comfy_backbone.load_nano()[1]
    image, noise = scene.pictures(1, 1, HEIGHT, WIDTH), scene.noise(1, HEIGHT, WIDTH)
    guided = nano.guided(image)
    whole = nano.sample(guided, noise)
    results: dict[str, Any] = {"size": float(whole.std())}
    for phase in PHASES:
        in_tiles = nano.sample(tile_model(guided, 96, 64, phase=phase), noise)
        results[phase] = float((in_tiles - whole).std())
        before = tile_model(nano.model, 96, 64, phase=phase)
        before = comfy_backbone.apply_guidance(before, nano.patch, image, 1.0, 0.0, 1.0)
        results[f"{phase}, other order"] = scene.difference(nano.sample(before, noise), in_tiles)
    return results


def check_tiling_chains(_out: Path) -> Any:
    nano, image, noise = setting()
    other = Wrapper()
    model = tile_model(wrapped(nano.guided(image), other), TILE, OVERLAP)
    result = nano.sample(model, noise, steps=2)
    expected = nano.sample(tile_model(nano.guided(image), TILE, OVERLAP), noise, steps=2)
    return {
        "same": torch.equal(result, expected),
        "places": other.places,
        "shapes": sorted({tuple(s) for s in other.shapes}),
        "moved": other.moved > 0,
        "ended": other.ended,
    }


def check_tiling_out_of_memory(_out: Path) -> Any:
    """A model that does not fit above 40 positions; the canvas has 72."""
    nano, noise = scene.Nano(), scene.noise(1, 72, 52)
    failed: list[int] = []

    def small_only(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        if args["input"].shape[-2] > 40:
            failed.append(args["input"].shape[-2])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return neighbours(apply, args)

    plain = wrapped(nano.model, small_only)
    results: dict[str, Any] = {}
    for tile in (0, 256):
        model = tile_model(plain, tile, OVERLAP)
        with scene.Messages() as messages:
            latent = nano.sample(model, noise)
        expected = nano.sample(tile_model(plain, {0: 144, 256: 128}[tile], OVERLAP), noise)
        first = failed.copy()
        failed.clear()
        again = nano.sample(model, noise)
        results[str(tile)] = {
            "same as that size": torch.equal(latent, expected),
            "failed": first,
            "failed again": failed.copy(),
            "the same again": torch.equal(again, latent),
            "lines": [m for m in messages.lines if "out of memory" in m],
        }
    nano.sample(tile_model(plain, 0, OVERLAP), noise, steps=1)
    results["a fresh one begins large"] = failed.copy()

    def never(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    try:
        nano.sample(tile_model(wrapped(nano.model, never), 0, OVERLAP), noise, steps=1)
    except torch.OutOfMemoryError as e:
        results["never fits"] = str(e)
    # The estimate alone: memory for a quarter of the canvas.
    need = nano.model.model.memory_required([2, scene.CHANNELS, 72, 52])
    other = Wrapper(neighbours)
    with replace.object(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: need / 4):
        nano.sample(tile_model(wrapped(nano.model, other), 0, OVERLAP), noise, steps=1)
    results["estimated"] = sorted({tuple(s) for s in other.shapes})
    return results


def check_tiling_interrupted(_out: Path) -> Any:
    nano, image, noise = setting()
    other = Wrapper()

    def stop(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        if len(other.places) == 4:
            mm.interrupt_current_processing()
        result: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        return result

    def without_model(_: Any, args: dict[str, Any]) -> torch.Tensor:
        """Core's layers see an interruption too; here nothing but the tiling does."""
        if len(other.places) == 4:
            mm.interrupt_current_processing()
        result: torch.Tensor = args["input"]
        return result

    results: dict[str, Any] = {}
    act = other.act
    for phase, stopping in zip(PHASES, (without_model, stop), strict=True):
        model = tile_model(wrapped(nano.guided(image), other), TILE, OVERLAP, phase=phase)
        expected = nano.sample(model, noise, steps=1)
        other.places.clear()
        other.act, raised = stopping, ""
        try:
            nano.sample(model, noise, steps=1)
        except mm.InterruptProcessingException as e:
            raised = type(e).__name__
        other.act = act
        results[phase] = {
            "raised": raised,
            "tiles": len(other.places),
            "features dropped": scene.patch_of(model).features is None,
            "afterwards": torch.equal(nano.sample(model, noise, steps=1), expected),
        }
    return results


def check_tiling_not_finite(_out: Path) -> Any:
    results: dict[str, Any] = {}
    nano, image, noise = setting()
    for dtype in (torch.float16, torch.bfloat16):
        nano.model = _of_dtype(dtype)
        mm.load_models_gpu([nano.model])
        # What float32 means: the same as weights of half precision in a model of float32.
        base, other = nano.model.model, _of_dtype(torch.float32)
        rounded = {k: v.float() for k, v in base.diffusion_model.state_dict().items()}
        other.model.diffusion_model.load_state_dict(rounded)
        x, sigma = noise[..., :12, :12] * 3, torch.ones(1) * 3
        c = {"c_crossattn": nano.positive[0][0], "y": torch.ones(1, base.adm_channels)}
        before = _switches(base)
        with full_precision.in_float32(base):
            ours = base.apply_model(x, sigma, **c)
        results[f"{dtype}, restored"] = _switches(base) == before
        mm.load_models_gpu([other])
        results[f"{dtype}, from float32"] = scene.difference(ours, other.model.apply_model(x, sigma, **c))
    for tile, bad, phase in ((TILE, (8, 0), 0), (TILE, (8, 0), 1), (0, (0, 0), 0)):
        results[f"tile {tile}, {phase}"] = _overflown(nano, nano.guided(image), noise, tile, bad, phase)

    def never(_: Any, args: dict[str, Any]) -> torch.Tensor:
        result: torch.Tensor = args["input"] * torch.inf
        return result

    results["never"] = _error(lambda: nano.sample(tile_model(wrapped(nano.model, never)), noise, steps=1))
    damaged = noise.clone()
    damaged[0, 0, 0, 0] = torch.nan
    results["latent"] = _error(lambda: nano.sample(tile_model(nano.model), damaged, steps=1))
    return results


def check_tiling_float32_of_8_bits(_out: Path) -> Any:
    """Core's fast 8-bit layers cut their input to 448."""
    layer = comfy.ops.fp8_ops.Linear(64, 32, dtype=torch.float8_e4m3fn)
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(torch.zeros(32).to(torch.float8_e4m3fn), requires_grad=False)
    base = SimpleNamespace(manual_cast_dtype=torch.bfloat16, diffusion_model=torch.nn.Sequential(layer))
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1)) * 1000
    own = set(vars(layer))
    with full_precision.in_float32(base):
        out = layer(x.clone())
    return {
        "difference": scene.difference(out, x @ weight.float().T),
        "size": float(out.abs().max()),
        "restored": set(vars(layer)) == own and base.manual_cast_dtype == torch.bfloat16,
    }


def _of_dtype(dtype: torch.dtype) -> Any:
    """Nano's UNet, computing in the dtype of its weights as on a GPU."""
    with replace.object(mm, "unet_manual_cast", dtypes._no_cast):
        return comfy_backbone.load_unet(str(nano_files.FOLDER / nano_files.UNET_FILE), {"dtype": dtype})


def _overflown(nano: Any, guided: Any, noise: torch.Tensor, tile: int, bad: tuple[int, int], phase: int) -> Any:
    """Two steps of a model that overflows in one tile, unless it computes in float32."""
    base, computed = guided.model, []

    def overflowing(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        at, dtype = args["c"]["transformer_options"]["pgp_tile"], base.get_dtype_inference()
        computed.append(((at.y, at.x), dtype))
        out: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        if (at.y, at.x) == bad and dtype != torch.float32:
            out[..., 3, 3] = torch.nan
        return out

    model = tile_model(wrapped(guided, overflowing), tile, OVERLAP, phase=PHASES[phase])
    with scene.Messages() as messages:
        latent = nano.sample(model, noise, steps=2)
    return {
        "finite": bool(latent.isfinite().all()),
        "in float32": [list(p) for p, d in computed if d == torch.float32],
        "lines": [m for m in messages.lines if "float32" in m and "Tiling" in m],
    }


def _switches(base: Any) -> list[Any]:
    """What layers have of their own that decides how they compute."""
    names = ("comfy_cast_weights", "comfy_force_cast_weights", "forward_comfy_cast_weights")
    return [base.manual_cast_dtype] + [
        {n: vars(m)[n] for n in names if n in vars(m)} for m in base.diffusion_model.modules()
    ]


def _error(action: Callable[[], Any]) -> list[str]:
    try:
        action()
    except Exception as e:
        return [type(e).__name__, str(e)]
    return []


def _called(calls: Any, x: torch.Tensor, apply: Any, **c: Any) -> torch.Tensor:
    """A call as core makes it, for conditionings that were put together."""
    options = {"cond_or_uncond": [1, 0], **c.pop("transformer_options", {})}
    args = {"input": x, "timestep": torch.full((len(x),), 2.0), "cond_or_uncond": [1, 0]}
    result: torch.Tensor = calls(apply, {**args, "c": {**c, "transformer_options": options}})
    return result


def _numbered(*size: int) -> torch.Tensor:
    """A picture of its own positions, ``y + x / 1000``."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return (y + x / 1000).expand(2, 3, *size).clone()


def check_tiling_crops(_out: Path) -> Any:
    """Conditioning of the latent's size, and a ControlNet's features at three scales."""
    nano = scene.Nano()
    calls = tile_model(nano.model, TILE, OVERLAP).model_options["model_function_wrapper"]
    x = _numbered(HEIGHT, WIDTH)
    sizes = [(HEIGHT, WIDTH), (17, 15), (9, 8)]
    control = {"input": [None, *(_numbered(*s) for s in sizes)], "middle": [_numbered(9, 8)], "output": []}
    tokens, before = torch.zeros(2, HEIGHT, WIDTH), {k: list(v) for k, v in control.items()}
    seen: list[Any] = []

    def apply(part: torch.Tensor, _t: torch.Tensor, c_concat: Any, c_crossattn: Any, control: Any, **rest: Any) -> Any:
        (y, x), (h, w) = _at(part), part.shape[-2:]
        spans = [[*_at(f), *f.shape[-2:]] for f in control["input"][1:]]
        expected = [[y // s, x // s, -(-h // s), -(-w // s)] for s in (1, 2, 4)]
        tile = rest["transformer_options"]["pgp_tile"]
        right = [spans == expected, torch.equal(c_concat, part), c_crossattn is tokens, (tile.y, tile.x) == (y, x)]
        right += [tuple(rest["y"].shape) == (2, 7), control["input"][0] is None, len(control["middle"]) == 1]
        right += [torch.equal(rest["deep"][0], part), rest["deep"][1] is None]
        seen.append([y, x, right])
        # As the UNet does.
        control["input"].pop()
        control["middle"].pop()
        return part

    c = {"c_concat": x.clone(), "c_crossattn": tokens, "y": torch.zeros(2, 7), "deep": [x, None]}
    out = _called(calls, x, apply, **c, control=control)
    results: dict[str, Any] = {
        "tiles": seen,
        "whole": scene.difference(out, x),
        "left as it was": {k: list(v) for k, v in control.items()} == before,
    }
    odd = {"input": [torch.zeros(2, 3, HEIGHT // 2, WIDTH // 2)]}
    results["refused"] = _error(lambda: _called(calls, x, apply, **c, control=odd))
    larger = tile_model(nano.model, 4096).model_options["model_function_wrapper"]
    taken = _called(larger, x, lambda part, _t, **c: part + len(c["control"]["input"]), control=odd)
    results["not refused without tiles"] = scene.difference(taken, x + 1)
    video = torch.zeros(1, 3, 5, HEIGHT, WIDTH)
    results["five dimensions"] = _called(calls, video, lambda part, _t, **c: part + ("pgp_tile" in c)).max().item()
    return results


def _at(part: torch.Tensor) -> tuple[int, int]:
    first = float(part[0, 0, 0, 0])
    return int(first), round(first % 1 * 1000)


class _Last:
    """A callback that keeps what it was given."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def __call__(self, step: int, x0: torch.Tensor, x: torch.Tensor, steps: int) -> None:
        self.x0 = x0
        self.steps.append([step, steps, len(x)])


def check_tiling_skips(_out: Path) -> Any:
    nano, image, noise = setting()
    told: list[Any] = []

    class Groups:
        def skip(self, tile: Tile, sigma: float, like: torch.Tensor) -> torch.Tensor | None:
            told.append([tile.y, tile.x, sigma, list(like.shape)])
            return torch.full_like(like, 7.0) if tile.y == 0 else None

    other = Wrapper()
    results: dict[str, Any] = {}
    for phase in PHASES:
        other.places.clear()
        told.clear()
        model = tile_model(wrapped(nano.guided(image), other), TILE, OVERLAP, phase=phase)
        model.model_options["transformer_options"]["pgp_groups"] = Groups()
        last = _Last()
        nano.sample(model, noise, steps=1, callback=last)
        results[phase] = {
            "told": [t[:2] for t in told],
            "shapes": sorted({tuple(t[3]) for t in told}),
            "sigmas": len({t[2] for t in told}),
            "called": other.places.copy(),
            # Above the second row of tiles, and of the quarter of the overlap that counts nothing.
            "skipped": scene.difference(last.x0[..., :10, :], torch.full((1, scene.CHANNELS, 10, WIDTH), 7.0)),
        }
    return results


def check_tiling_whole_canvas(_out: Path) -> Any:
    """What each tile's PEAM is given, against an exchange over features blended by hand."""
    nano, image, noise = setting(2)
    fused: list[tuple[torch.Tensor, torch.Tensor, Any]] = []
    fuse = Guidance.fuse

    def noting(self: Any, site: int, h: Any, f: Any, strength: float = 1.0, exchange: bool = True, phased: Any = None):  # type: ignore[no-untyped-def]
        if self.exchanges(site):
            fused.append((h.clone(), f.clone(), phased))
        return fuse(self, site, h, f, strength, exchange, phased)

    def sample(phase: str) -> list[Any]:
        fused.clear()
        with replace.object(Guidance, "fuse", noting):
            nano.sample(tile_model(nano.guided(image), TILE, OVERLAP, phase=phase), noise, steps=1)
        return fused.copy()

    alone, together = sample("tile"), sample("canvas")
    tiles = grid(HEIGHT, WIDTH, 16, 8)
    size = (17, 15)
    total, share = torch.zeros(4, 64, *size), torch.zeros(size)
    for (h, _, _), tile in zip(alone, tiles, strict=True):
        y, x = tile.y // 2, tile.x // 2
        weight = torch.outer(_ramp(y, h.shape[-2], size[0], 4), _ramp(x, h.shape[-1], size[1], 4))
        total[..., y : y + h.shape[-2], x : x + h.shape[-1]] += h * weight
        share[y : y + h.shape[-2], x : x + h.shape[-1]] += weight
    h = total / share
    patch = scene.patch_of(nano.guided(image))
    patch.prepare(lambda *_: None, noise)
    (site,) = patch.exchanging({"sigmas": torch.ones(1)})
    f = patch.features[site].repeat(2, 1, 1, 1)
    patch.cleanup()
    own, phase = torch.fft.fft2(h.double()), torch.fft.fft2(f.double())
    expected = torch.fft.ifft2(own.abs() * phase / phase.abs()).real
    differences = []
    for (_, _, phased), tile in zip(together, tiles, strict=True):
        y, x = tile.y // 2, tile.x // 2
        part = expected[..., y : y + phased.shape[-2], x : x + phased.shape[-1]]
        differences.append(scene.difference(phased.double(), part))
    return {
        "none alone": all(p is None for _, _, p in alone),
        "difference": max(differences),
        "size": float(expected.abs().max()),
        "same features": all(torch.equal(a[1], b[1]) for a, b in zip(alone, together, strict=True)),
    }


def _ramp(start: int, length: int, size: int, overlap: int) -> torch.Tensor:
    """A raised cosine over the middle half of the overlap, 1 at the canvas's edges."""
    at = (torch.arange(length) + 0.5) / overlap
    rise = (1 - torch.cos(torch.pi * (2 * (at - 0.25)).clamp(0, 1))) / 2
    ones = torch.ones(length)
    return (rise if start > 0 else ones) * (rise.flip(0) if start + length < size else ones)


def check_tiling_frames(_out: Path) -> Any:
    nano, image, noise = scene.Nano(), scene.pictures(1, 3, 9, 7), scene.noise(3, 9, 7)
    mask = torch.zeros(3, 9, 7)
    mask[0, :4], mask[1, 4:], mask[2] = 1, 1, 1
    latent = scene.noise(3, 9, 7).flip(0) * 0.1
    results: dict[str, Any] = {"from the whole": {}}
    held: list[list[int]] = []
    made: list[int] = []
    of = Guidance.features

    def noting(self: Any, lq: torch.Tensor, *args: Any) -> Any:
        made.append(len(lq))
        return of(self, lq, *args)

    # fmt: off
    def sample(model: Any, callback: Any = None) -> torch.Tensor:
        result: torch.Tensor = comfy.sample.sample(
            model, noise, 3, scene.CFG, "euler", "ddim_uniform", nano.positive, nano.negative, latent,
            noise_mask=mask, seed=scene.SEED, callback=callback, disable_pbar=True,
        )
        return result
    # fmt: on

    for pictures in (1, 2, 3):
        whole = sample(nano.guided(image[:pictures]))
        for frames in (1, 2, 3):
            behind = tile_model(nano.guided(image[:pictures]), frames=frames)
            front = comfy_backbone.apply_guidance(
                tile_model(nano.model, frames=frames), nano.patch, image[:pictures], 1.0, 0.0, 1.0
            )
            differences = [scene.difference(sample(m), whole) * nano_files.SCALE for m in (behind, front)]
            results["from the whole"][f"{pictures} pictures, {frames} frames"] = differences
    whole_watch, watch = _Last(), _Last()
    unguided = sample(nano.model, whole_watch)
    with replace.object(Guidance, "features", noting):
        for model in (
            tile_model(nano.guided(image), frames=2),
            comfy_backbone.apply_guidance(tile_model(nano.model, frames=2), nano.patch, image, 1.0, 0.0, 1.0),
        ):
            held.append([])
            patch = scene.patch_of(model)
            sample(model, _Watching(patch, held[-1]))
    results["held"], results["made"] = held, len(made)
    in_parts = sample(tile_model(nano.model, frames=2), watch)
    results["steps"] = watch.steps
    results["last"] = scene.difference(watch.x0, whole_watch.x0)
    results["unguided"] = scene.difference(in_parts, unguided) * nano_files.SCALE
    # One prompt, one mask and one ControlNet picture per latent.
    positive = [
        [
            nano.positive[0][0] * torch.tensor([1.0, 0.5, 0.0])[:, None, None],
            {**nano.positive[0][1], "control": _Control(torch.rand(3, 1, 9, 7)), "mask": mask.flip(0) * 0.5 + 0.5},
        ]
    ]
    nano.positive = nano.negative = positive
    whole = nano.sample(nano.model, noise)
    shares = [nano.sample(tile_model(nano.model, frames=n), noise) for n in (1, 2)]
    results["conditioning"] = [scene.difference(s, whole) * nano_files.SCALE for s in shares]
    results["conditioning matters"] = scene.difference(whole[:1], nano.sample(nano.model, noise)[1:2])
    results["hints"] = list(positive[0][1]["control"].cond_hint_original.shape)
    return results


class _Watching:
    """A callback that counts the pictures whose features are held."""

    def __init__(self, patch: Any, held: list[int]) -> None:
        self.patch, self.held = patch, held

    def __call__(self, *_: Any) -> None:
        self.held.append(len(self.patch.features[0]))


class _Control(comfy.controlnet.ControlBase):
    """A ControlNet that adds its picture to the first features."""

    def __init__(self, hint: torch.Tensor) -> None:
        super().__init__()
        self.set_cond_hint(hint)

    def copy(self) -> _Control:
        copied = _Control(self.cond_hint_original)
        self.copy_to(copied)
        return copied

    def get_control(self, x: torch.Tensor, t: Any, cond: Any, batched_number: int, options: Any) -> Any:
        hint = comfy.controlnet.broadcast_image_to(self.cond_hint_original, len(x), batched_number)
        return {"input": [hint.expand(-1, 32, -1, -1)]}


def check_tiling_alignment(_out: Path) -> Any:
    """FaithDiff's parts on nano: each tile learns where it lies."""
    nano, image, noise = setting()
    torch.manual_seed(0)
    site = Site("conv_in", 64, 0, 4, "alignment")
    spec = GuidanceSpec("pgp-nano", (site,), encoder_channels=(32, 32, 32), encoder_blocks=1)
    guidance = Guidance(spec).eval().requires_grad_(False)
    device = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(guidance, device, device)
    guided = comfy_backbone.apply_guidance(nano.model, patcher, image, 1.0, 0.0, 1.0)
    seen: list[Any] = []

    def noting(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        seen.append((args["c"]["transformer_options"]["pgp_tile"], args["c"]["y"]))
        result: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        return result

    def sample(model: Any) -> list[Any]:
        seen.clear()
        nano.sample(tile_model(wrapped(model, noting), TILE, OVERLAP), noise, steps=1)
        return seen.copy()

    def expected(extra: dict[str, Any], **numbers: int) -> torch.Tensor:
        sizes = {k: v for k, v in extra.items() if k != "pooled_output"}
        sizes = {"height": HEIGHT * 8, "width": WIDTH * 8, **sizes, **numbers}
        y: torch.Tensor = nano.model.model.encode_adm(pooled_output=extra["pooled_output"], device=device, **sizes)
        return y

    differences = []
    for tile, y in sample(guided):
        numbers = {"crop_h": tile.y, "crop_w": tile.x, "target_height": tile.height * 4, "target_width": tile.width * 4}
        rows = [expected(c[0][1], **numbers) for c in (nano.negative, nano.positive)]
        differences.append(scene.difference(y, torch.cat(rows)))
    plain = [expected(c[0][1]) for c in (nano.negative, nano.positive)]
    others = [scene.difference(y, torch.cat(plain)) for _, y in sample(nano.guided(image))]
    whole = Tile(0, 0, HEIGHT, WIDTH, (HEIGHT, WIDTH))
    y = torch.zeros(1, 10)
    embedder = nano.model.model.embedder
    return {
        "tiles": len(differences),
        "difference": max(differences),
        "PEAM alone": max(others),
        "whole": of_tile(y, whole, 4, embedder) is y,
        "too short": of_tile(y, Tile(0, 0, 8, 8, (HEIGHT, WIDTH)), 4, embedder) is y,
        "close": scene.difference(
            nano.sample(tile_model(guided, TILE, OVERLAP), noise, steps=1), nano.sample(guided, noise, steps=1)
        ),
    }


def check_tiling_one_step(_out: Path) -> Any:
    nano, image, _ = setting()
    z_l = nano.vae.encode(image)
    pixel = one_step._with_s1(nano.guided(image))[0]
    lora = {k: v for k, v in pixel.patches.items() if "output_blocks" in k}
    both = pixel.clone()
    for k, v in lora.items():
        both.patches[k] = v * 2
    both.patches_uuid = uuid.uuid4()
    results: dict[str, Any] = {}
    plain = one_step._sample(nano, pixel, z_l)
    results["whole"] = torch.equal(one_step._sample(nano, tile_model(pixel), z_l), plain)
    calls = Wrapper()
    one_step._sample(nano, tile_model(wrapped(pixel, calls), TILE, OVERLAP), z_l)
    results["calls"] = calls.places
    results["from the whole"] = float((one_step._sample(nano, tile_model(pixel, 96, 64), z_l) - plain).std())
    results["changes"] = float((plain - z_l).std())
    pixel_tiled, both_tiled = (tile_model(m, TILE, OVERLAP) for m in (pixel, both))
    one, two = (one_step._sample(nano, m, z_l) for m in (pixel_tiled, both_tiled))
    dialled = one_step._sample(nano, both_tiled, z_l, pixel_model=pixel_tiled, pixel=0.6, semantic=1.4)
    results["dial"] = scene.difference(dialled, z_l - 0.6 * (z_l - one) - 1.4 * (one - two)) * nano_files.SCALE
    results["dial matters"] = scene.difference(one, two)
    # One tiled MODEL whose LoRA comes behind: both share the tiling, and a batch in parts.
    batch = scene.pictures(3, 2, 9, 7)
    z = nano.vae.encode(batch)
    shared = tile_model(nano.guided(batch), frames=1)
    s1 = one_step._with_s1(shared)[0]
    more = s1.clone()
    for k in lora:
        more.patches[k] = more.patches[k] * 2
    more.patches_uuid = uuid.uuid4()
    in_parts = one_step._sample(nano, more, z, pixel_model=s1, pixel=0.6, semantic=1.4)
    one, two = (one_step._sample(nano, m, z) for m in (s1, more))
    results["dial in parts"] = scene.difference(in_parts, z - 0.6 * (z - one) - 1.4 * (one - two)) * nano_files.SCALE
    return results


def check_tiling_refusals(_out: Path) -> Any:
    nano, image, noise = setting()
    video = nano.model.clone()
    video.add_object_patch("latent_format", comfy.latent_formats.Wan21())
    area = [[nano.positive[0][0], {**nano.positive[0][1], "area": (16, 16, 0, 0), "strength": 1.0}]]
    tiled = tile_model(nano.guided(image), TILE, OVERLAP)

    def with_area(model: Any) -> torch.Tensor:
        prompt, nano.positive = nano.positive, prompt_and_area
        try:
            return nano.sample(model, noise, steps=1)
        finally:
            nano.positive = prompt

    prompt_and_area = nano.positive + area
    return {
        "overlap": _error(lambda: tile_model(nano.model, 96, 128)),
        "small": _error(lambda: tile_model(_with_scale(nano.model, 16), 32, 0)),
        "twice": _error(lambda: tile_model(tile_model(nano.model, 96, 64))),
        "twice, another between": _error(lambda: tile_model(tile_model(tile_model(nano.model)), 96, 64)),
        "video": _error(lambda: tile_model(video)),
        "phase": _error(lambda: tile_model(nano.model, phase="none")),
        "area": _error(lambda: with_area(tiled)),
        "tiles within tiles": _error(
            lambda: nano.sample(tile_model(wrapped(nano.guided(image), _halves), TILE, OVERLAP), noise)
        ),
        "area, unguided": bool(with_area(tile_model(nano.model, TILE, OVERLAP)).isfinite().all()),
    }


def _halves(apply: Any, args: dict[str, Any]) -> torch.Tensor:
    """Another pack's tiles."""
    parts = args["input"].chunk(2, -1)
    return torch.cat([apply(p, args["timestep"], **args["c"]) for p in parts], -1)


def _with_scale(model: Any, scale: int) -> Any:
    copy = model.clone()
    latents = comfy.latent_formats.SDXL()
    latents.spacial_downscale_ratio = scale
    copy.add_object_patch("latent_format", latents)
    return copy
