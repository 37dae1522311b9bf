"""Tiles on nano: what each gets, and what they make together."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.nodes.comfy_backbone.tiling.micro_conditioning import of_tile
from pgp_pack.pgp_core.choices import PHASES
from pgp_pack.pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_pack.pgp_core.restorers.nano import model as nano_files
from pgp_pack.pgp_core.tiling import Tile

from .. import one_step, scene, state
from ..raised import raised
from .setting import HEIGHT, OVERLAP, TILE, WIDTH, Last, Wrapper, neighbours, setting, wrapped


def check_tiling_larger_than_the_picture(_out: Path) -> Any:
    nano, image, noise = setting(2, scene.HEIGHT, scene.WIDTH)
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


def check_tiling_skips(_out: Path) -> Any:
    nano, image, noise = setting()
    told: list[Any] = []

    class Groups:
        def skip(self, tile: Tile, sigma: float, like: torch.Tensor, _latents: Any) -> torch.Tensor | None:
            told.append([tile.y, tile.x, sigma, list(like.shape)])
            return torch.full_like(like, 7.0) if tile.y == 0 else None

    other = Wrapper()
    results: dict[str, Any] = {}
    for phase in PHASES:
        other.places.clear()
        told.clear()
        model = tile_model(wrapped(nano.guided(image), other), TILE, OVERLAP, phase=phase)
        model.model_options["transformer_options"]["pgp_groups"] = Groups()
        last = Last()
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
    results["refused"] = raised(lambda: _called(calls, x, apply, **c, control=odd))
    larger = tile_model(nano.model, 4096).model_options["model_function_wrapper"]
    taken = _called(larger, x, lambda part, _t, **c: part + len(c["control"]["input"]), control=odd)
    results["not refused without tiles"] = scene.difference(taken, x + 1)
    video = torch.zeros(1, 3, 5, HEIGHT, WIDTH)
    results["five dimensions"] = _called(calls, video, lambda part, _t, **c: part + ("pgp_tile" in c)).max().item()
    return results


def _at(part: torch.Tensor) -> tuple[int, int]:
    first = float(part[0, 0, 0, 0])
    return int(first), round(first % 1 * 1000)


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
    context, extra = nano.positive[0]
    nano.positive = [[context, {**extra, "area": (24, 20, 5, 7), "strength": 1.0}]]
    in_area = []
    for tile, y in sample(guided):
        if tile.of == (24, 20):
            sizes = {"target_height": tile.height * 4, "target_width": tile.width * 4}
            numbers = {"crop_h": 5 + tile.y, "crop_w": 7 + tile.x, **sizes}
            # Core gives the negative prompt the same area.
            rows = [expected(c, **numbers) for c in (nano.negative[0][1], extra)]
            in_area.append(scene.difference(y, torch.cat(rows)))
    nano.positive = [[context, extra]]
    others = [scene.difference(y, torch.cat(plain)) for _, y in sample(nano.guided(image))]
    whole = Tile(0, 0, HEIGHT, WIDTH, (HEIGHT, WIDTH))
    y = torch.zeros(1, 10)
    embedder = nano.model.model.embedder
    return {
        "tiles": len(differences),
        "difference": max(differences),
        "tiles of an area": len(in_area),
        "in an area": max(in_area),
        "PEAM alone": max(others),
        "whole": of_tile(y, whole, 4, embedder) is y,
        "too short": of_tile(y, Tile(0, 0, 8, 8, (HEIGHT, WIDTH)), 4, embedder) is y,
        "close": scene.difference(
            nano.sample(tile_model(guided, TILE, OVERLAP), noise, steps=1), nano.sample(guided, noise, steps=1)
        ),
    }
