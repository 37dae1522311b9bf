"""LQ tiles at work: out of memory, overflow, devices, a stop, and the memory that is taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import memory
import pytest
import torch
from narrow_encoder import ENCODER, draw, make
from narrow_guidance import TWO_SITES

from pgp_core.errors import PGPError
from pgp_core.guidance.lq_adapter import LQAdapter
from pgp_core.guidance.lq_tiles import LQTiles
from pgp_core.guidance.lq_tiles.stages import Norm, Stage


def no_words(_: str) -> None:
    raise AssertionError("there is nothing to say")


def pointwise(rgb: torch.Tensor) -> torch.Tensor:
    """An encoder of half the size that looks nowhere else."""
    height, width = (n + n % 2 for n in rgb.shape[-2:])
    pad = (0, width - rgb.shape[-1], 0, height - rgb.shape[-2])
    return torch.nn.functional.pad(rgb, pad, mode="replicate")[..., ::2, ::2]


def alone(encode: Callable[[torch.Tensor], torch.Tensor]) -> list[Stage]:
    """It as a stage."""

    def run(x: torch.Tensor, _: Norm) -> torch.Tensor:
        return encode(x)

    return [Stage(run, 3, 0, 2)]


def limited(most: int, calls: list[tuple[int, ...]]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same with memory for so many pixels."""

    def encode(rgb: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(rgb.shape))
        if rgb.shape[0] * rgb.shape[-2] * rgb.shape[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pointwise(rgb)

    return encode


def test_out_of_memory_halves_the_tile_says_so_once_and_goes_on() -> None:
    said: list[str] = []
    freed: list[int] = []
    calls: list[tuple[int, ...]] = []
    lq = draw(1, 3, 601, 500)
    tiles = LQTiles(tile=1024, say=said.append, free=lambda: freed.append(1))
    encode = limited(140 * 140, calls)
    made = tiles.encoder(encode, alone(encode), lq)
    torch.testing.assert_close(made, pointwise(lq * 2 - 1), atol=1e-6, rtol=1e-6)
    # The whole, then from its 301 positions 148 and 72 of two pixels.
    assert said == ["memory ran out in the LQ encoder: it goes on in tiles of 144 x 144 pixels"]
    assert len(freed) == 2
    # The next picture begins with what fitted.
    before = len(calls)
    tiles.encoder(encode, alone(encode), lq)
    assert all(h * w <= 140 * 140 for _, _, h, w in calls[before:])
    assert len(said) == 1


@torch.no_grad()
def test_halved_tiles_are_exact_too() -> None:
    guidance, lq = make(), draw(1, 3, 97, 131)
    said: list[str] = []
    freed: list[int] = []

    def full(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        # After the attention, when much has been computed.
        if inputs[0].shape[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")

    (whole,) = guidance.features(lq)
    guidance.lq_encoder.mid_block.resnets[1].conv2.register_forward_pre_hook(full)  # type: ignore[union-attr,operator,index]
    tiles = LQTiles(tile=112, say=said.append, free=lambda: freed.append(1))
    (tiled,) = guidance.features(lq, None, tiles)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)
    assert said == ["memory ran out in the LQ encoder: it goes on in tiles of 64 x 64 pixels"]
    assert freed == [1]


def test_out_of_memory_in_the_adapter() -> None:
    said: list[str] = []
    torch.manual_seed(0)
    adapter = LQAdapter((4, 4, 4, 4), 4, 4)
    lq = draw(1, 3, 500, 500)
    with torch.no_grad():
        whole = adapter(lq)[3]

    def ranged(rgb: torch.Tensor) -> torch.Tensor:
        if rgb.shape[-1] > 420:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)")
        return rgb

    (made,) = LQTiles(say=said.append).adapter(adapter, lq, {3}, ranged).values()
    torch.testing.assert_close(made, whole, atol=1e-6, rtol=1e-6)
    assert len(said) == 1
    assert "LQ adapter" in said[0]


def test_pictures_of_a_batch_are_taken_one_by_one_before_they_are_cut() -> None:
    calls: list[tuple[int, ...]] = []
    LQTiles(tile=256).encoder(limited(128 * 128, calls), alone(pointwise), draw(4, 3, 128, 128))
    assert calls == [(4, 3, 128, 128)] + [(1, 3, 128, 128)] * 4


def test_what_is_no_lack_of_memory_is_not_tried_again() -> None:
    def wrong(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        LQTiles(tile=256, say=no_words).encoder(wrong, alone(wrong), draw(1, 3, 300, 300))
    with pytest.raises(torch.OutOfMemoryError):
        LQTiles(tile=256, say=no_words).encoder(limited(10, []), alone(limited(10, [])), draw(1, 3, 300, 300))
    with pytest.raises(PGPError, match="cannot overlap"):
        LQTiles(tile=4).encoder(pointwise, alone(pointwise), draw(1, 3, 300, 300))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(100, 100), (100, 260)])
def test_a_tile_that_overflows_in_half_precision_is_run_again_in_float32(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    said: list[str] = []
    dtypes: list[torch.dtype] = []
    lq = draw(1, 3, *size)
    lq[..., 2:4, 4:6] = 1.0
    lq[..., 60:62, 80:82] = 1.0

    def encode(rgb: torch.Tensor) -> torch.Tensor:
        dtypes.append(rgb.dtype)
        out = pointwise(rgb)
        return torch.where(out >= 1, float("inf"), out) if rgb.dtype == dtype else out

    made = LQTiles(tile=128, say=said.append).encoder(encode, alone(encode), lq, dtype)
    torch.testing.assert_close(made, pointwise(lq * 2 - 1), atol=2e-2, rtol=0)
    name = str(dtype).removeprefix("torch.")
    assert said == [f"the LQ encoder overflowed in {name}; what overflows is run again in float32"]
    # The whole, or three pieces of a canvas whose first had overflowed.
    assert dtypes == [dtype, *[torch.float32] * (1 if size[1] == 100 else 3)]
    # Where it does not overflow, features are in what computed them.
    fine = LQTiles(tile=128, say=no_words).encoder(pointwise, alone(pointwise), lq, dtype)
    assert fine.dtype == dtype
    torch.testing.assert_close(fine.float(), pointwise(lq * 2 - 1), atol=2e-2, rtol=0)


@torch.no_grad()
def test_the_canvas_stays_where_it_is_and_features_rest_in_memory(device: torch.device) -> None:
    both = [make(spec) for spec in (ENCODER, TWO_SITES)]
    lq = draw(1, 3, 130, 200)
    expected = [f for g in both for f in g.features(lq)]
    seen: list[tuple[str, int]] = []

    def note(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((inputs[0].device.type, inputs[0].numel()))

    for guidance in both:
        guidance.to(device)
        (guidance.lq_encoder.conv_in if guidance is both[0] else guidance.lq_adapter).register_forward_pre_hook(note)
    cut = [f for g in both for f in g.features(lq, None, LQTiles(device, tile=96, adapter_tile=32))]
    assert all(kind == device.type and n < lq.numel() for kind, n in seen)
    whole = [f for g in both for f in g.features(lq, None, LQTiles(device))]
    chosen = [f for g in both for f in g.features(lq, None, LQTiles(device, rest="cpu"))]
    assert all(f.device.type == "cpu" for f in (*cut, *chosen))
    assert all(f.device.type == device.type for f in whole)
    for a, b, c in zip(expected, whole, chosen, strict=True):
        torch.testing.assert_close(b.cpu(), a, atol=1e-4, rtol=1e-4)
        assert torch.equal(b.cpu(), c)
    for a, b in zip(expected, cut, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


def test_it_can_be_stopped_after_any_tile() -> None:
    done: list[int] = []

    def stop() -> None:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LQTiles(tile=64, done=stop).encoder(pointwise, alone(pointwise), draw(1, 3, 300, 300))
    assert len(done) == 3


# -- memory ------------------------------------------------------------------------------------------------

MEASURED = """
import sys, torch
sys.path.insert(0, {support!r})
import memory
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_core.guidance.lq_tiles import LQTiles
torch.set_num_threads(1)
site = Site("conv_in", 32, 0, 4, "alignment"), Site("down", 32, 3, 32)
guidance = Guidance(GuidanceSpec(sites=site, encoder_channels=(32, 32, 32), encoder_blocks=1, channels=(32,) * 4))
side = int(sys.argv[1])
lq = torch.rand(1, 3, side, side)
features, taken = memory.measure(
    lambda: guidance.features(lq, None, LQTiles(tile=128, adapter_tile=256)), __import__("pathlib").Path("none")
)
print(taken.peak)
"""


@pytest.mark.skipif(not memory.available(), reason="reads Linux's peak memory")
def test_memory_is_a_tiles() -> None:
    """Four times the pixels take what rests between stages, and no more. Each in a fresh process."""
    script = MEASURED.format(support=str(Path(__file__).parent / "support"))
    # What is freed goes back at once: otherwise glibc keeps what it may use again, up to 20 MB and never alike.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

    def taken(side: int) -> int:
        command = [sys.executable, "-c", script, str(side)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(out.stdout)

    # Maps of 32 channels at a half and a quarter of the size: 8 + 2 numbers per pixel, of 4 bytes. The encoder on the
    # whole of the larger one would take 400 MB more.
    resting = 40 * (1024**2 - 512**2)
    assert taken(1024) - taken(512) <= 1.2 * resting + 8e6
