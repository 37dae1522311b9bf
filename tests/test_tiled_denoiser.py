"""A guided UNet in tiles: what does not look beyond the overlap is as without tiles, whatever PEAM does."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from pgp_core.choices import PHASES
from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.errors import Cancelled, PGPError
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling

IDS = (512.0, 512.0, 0.0, 0.0, 512.0, 512.0)
POSITIVE, NEGATIVE = (Conditioning.of_prompt(torch.full((1, 3, 2), v), torch.full((1, 2), v), IDS) for v in (0.4, -0.3))
#: Two sites: features added at the latent's scale, phases exchanged at half of it.
SITES = (Site("conv_in", 4, 0, 4, "add"), Site("down", 4, 2, 8, "phase"))
SPEC = GuidanceSpec("test", SITES, channels=(4, 4, 4, 4), unshuffle=4)


class Resting:
    """Features in RAM beside a card, as far as a machine without one can tell: how often all of them were moved, and
    whether what was moved is still held."""

    def __init__(self, features: torch.Tensor):
        self.features, self.shape = features, features.shape
        self.moved: list[weakref.ref[torch.Tensor]] = []

    def to(self, _device: torch.device) -> torch.Tensor:
        copy = self.features.clone()
        self.moved.append(weakref.ref(copy))
        return copy

    def __getitem__(self, where: Any) -> torch.Tensor:
        return self.features[where]


class Small(torch.nn.Module):
    """A UNet of 1x1 layers, so that only the phase exchange looks further than its own position."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = torch.nn.Conv2d(4, 4, 1)
        self.down = torch.nn.Conv2d(4, 4, 2, stride=2)
        self.up = torch.nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.calls: list[Any] = []
        self.broken: set[torch.dtype] = set()

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, encoder_hidden_states: Any, added_cond_kwargs: Any, return_dict: bool
    ) -> Any:
        self.calls.append((tuple(x.shape), added_cond_kwargs["time_ids"].tolist()))
        h = self.conv_in(x)
        gain = encoder_hidden_states.mean((1, 2)).view(-1, 1, 1, 1)
        out = h + gain * self.up(self.down(h))
        if x.dtype in self.broken:
            out = out * float("nan")
        return (out,)


def guidance() -> Guidance:
    torch.manual_seed(1)
    return Guidance(SPEC)


def denoiser(size: tuple[int, int], tiling: Tiling, cfg: float = 2.0, **more: Any) -> tuple[Denoiser, torch.Tensor]:
    torch.manual_seed(2)
    canvas, x = torch.rand(1, 3, size[0] * 4, size[1] * 4), torch.randn(1, 4, *size)
    guide = guidance()
    with torch.no_grad():
        features = guide.features(canvas)
    options = SampleOptions(cfg=cfg, tiling=tiling)
    return Denoiser(Small(), guide, features, POSITIVE, NEGATIVE, options, factor=4, **more), x


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (40, 96), (58, 74)])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_over_the_canvas_the_exchange_does_not_see_tiles(size: tuple[int, int], cfg: float) -> None:
    t = torch.full((1,), 501.0)
    whole, x = denoiser(size, Tiling(), cfg)
    wanted = whole(x, t)
    tiled, _ = denoiser(size, Tiling(128, 64, phase="canvas"), cfg)
    torch.testing.assert_close(tiled(x, t), wanted, atol=2e-5, rtol=1e-4)
    assert len(tiled.unet.calls) > 2  # type: ignore[arg-type,union-attr]
    apart, _ = denoiser(size, Tiling(128, 64), cfg)
    assert (apart(x, t) - wanted).abs().max() > 1e-2, "tile by tile the exchange is another one"


@torch.no_grad()
def test_without_an_exchange_tiles_change_nothing() -> None:
    t = torch.full((1,), 501.0)
    whole, x = denoiser((58, 74), Tiling())
    tiled, _ = denoiser((58, 74), Tiling(128, 64))
    whole.exchange = tiled.exchange = False
    torch.testing.assert_close(tiled(x, t), whole(x, t), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_tile_that_covers_all_is_the_call_without_tiles() -> None:
    t = torch.full((1,), 501.0)
    whole, x = denoiser((40, 48), Tiling())
    tiled, _ = denoiser((40, 48), Tiling(192, 64, phase="canvas"))
    assert torch.equal(tiled(x, t), whole(x, t))
    assert len(tiled.unet.calls) == 1  # type: ignore[arg-type,union-attr]
    (shape, ids) = tiled.unet.calls[0]  # type: ignore[index,union-attr,misc]
    assert shape == (2, 4, 40, 48)
    assert ids == [list(IDS)] * 2, "sizes are a model's own business unless FaithDiff's alignment guides it"


def test_faithdiff_tells_a_tile_where_it_lies() -> None:
    """Design, A8: the canvas's size in pixels, where the tile begins in latent positions, the tile's size in pixels."""
    from pgp_core.tiling import grid

    canvas = Conditioning.of_prompt(torch.zeros(1, 1, 1), torch.zeros(1, 1), (1536.0, 2048.0, 0.0, 0.0, 1536.0, 2048.0))
    tile = grid(192, 256, 128, 64)[-1]
    assert canvas.of_tile(tile, 8).time_ids.tolist() == [[1536.0, 2048.0, 64, 128, 1024.0, 1024.0]]


@torch.no_grad()
def test_a_tile_that_overflows_is_run_again_in_float32_and_said_once() -> None:
    said: list[str] = []
    tiled, x = denoiser((40, 96), Tiling(128, 64), say=said.append)
    tiled.unet.half()
    tiled.unet.broken = {torch.float16}  # type: ignore[assignment]
    got = tiled(x, torch.full((1,), 501.0))
    assert got.isfinite().all()
    assert got.dtype == torch.float32
    assert {p.dtype for p in tiled.unet.parameters()} == {torch.float16}
    assert len(said) == 1
    assert "float32" in said[0]
    tiled.unet.broken = {torch.float16, torch.float32}  # type: ignore[assignment]
    with pytest.raises(PGPError, match="float32 too"):
        tiled(x, torch.full((1,), 501.0))
    assert {p.dtype for p in tiled.unet.parameters()} == {torch.float16}


@torch.no_grad()
def test_memory_that_runs_out_halves_the_tiles_once_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    model, x = denoiser((64, 64), Tiling(), say=said.append)
    forward = Small.forward

    def limited(self: Small, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if x.shape[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(Small, "forward", limited)
    for _ in range(2):
        assert model(x, torch.full((1,), 501.0)).shape == x.shape
    assert said == ["memory ran out: going on in tiles of 128 pixels (--tile 128)"]


@torch.no_grad()
@pytest.mark.parametrize("phase", PHASES)
def test_nothing_of_a_run_waits_for_the_garbage_collector(phase: str) -> None:
    """Latent and features are as large as the canvas."""
    model, x = denoiser((40, 96), Tiling(128, 64, phase=phase))
    model(x, torch.full((1,), 501.0))
    held = [weakref.ref(model), weakref.ref(x), *(weakref.ref(f) for f in model.features)]
    gc.disable()
    try:
        del model, x
        assert [r() is None for r in held] == [True] * 4
    finally:
        gc.enable()


@torch.no_grad()
def test_features_that_rest_in_ram_are_moved_once_for_a_run_without_tiles() -> None:
    wanted, x = denoiser((40, 48), Tiling())
    model, _ = denoiser((40, 48), Tiling())
    resting = [Resting(f) for f in model.features]
    model.features = tuple(resting)  # type: ignore[assignment]
    for t in (901.0, 501.0, 1.0):
        assert torch.equal(model(x, torch.full((1,), t)), wanted(x, torch.full((1,), t)))
    assert [len(r.moved) for r in resting] == [1, 1]


@torch.no_grad()
def test_features_leave_the_device_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = denoiser((64, 64), Tiling(), say=lambda _: None)
    resting = [Resting(f) for f in model.features]
    model.features = tuple(resting)  # type: ignore[assignment]
    forward, held = Small.forward, []

    def limited(self: Small, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        held.append([ref() is not None for r in resting for ref in r.moved])
        if x.shape[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(Small, "forward", limited)
    model(x, torch.full((1,), 501.0))
    first, *tiles = held
    assert first == [True, True]
    assert tiles
    assert all(h == [False, False] for h in tiles)


def test_a_run_is_cancelled_between_two_tiles() -> None:
    pipeline, asked = NanoRestorer.load(one_step=True), []

    def progress(done: int, total: int) -> bool:
        asked.append((done, total))
        return len(asked) < 3

    options = SampleOptions(cfg=1.0, tiling=Tiling(128, 64))
    with pytest.raises(Cancelled):
        pipeline.restore(torch.rand(1, 3, 256, 256), options, progress)
    assert asked == [(0, 1)] * 3
    pipeline.restore(torch.rand(1, 3, 64, 64), SampleOptions(cfg=1.0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tile": 64, "overlap": 64}, "tiles of 64 pixels cannot overlap by 64"),
        ({"blend": "linear"}, "blend is cosine or gaussian"),
        ({"phase": "world"}, "over a tile or a canvas"),
        ({"tile": -1}, "0 to 1048576 pixels, not -1"),
    ],
)
def test_wrong_settings_are_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(PGPError, match=said):
        Tiling(**wrong)
