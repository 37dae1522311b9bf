"""Sizes, batches, stopping, half precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sdxl_scene import SHORT, Everything, peam_file, picture

from pgp_core.errors import Cancelled, PGPError
from pgp_core.images.sizes import Size
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.restorers.upscale import upscale


@pytest.mark.parametrize(("width", "height", "scale"), [(37, 29, 2.0), (9, 21, 3.3), (1, 1, 8.0)])
def test_every_size_comes_out_exactly(width: int, height: int, scale: float, pipeline: SDXLRestorer) -> None:
    options = replace(SHORT, steps=1, cfg=1.0)
    out = upscale(pipeline, picture(1, height, width), Size(scale=scale), options, fix="none")
    assert out.shape == (1, 3, int(height * scale + 0.5), int(width * scale + 0.5))
    assert torch.isfinite(out).all()
    assert pipeline.restore(picture(1, height, width), options).shape == (1, 3, height, width)


def test_a_batch_is_its_pictures_alone(pipeline: SDXLRestorer) -> None:
    pictures = picture(2, 20, 27)
    both = upscale(pipeline, pictures, Size(scale=2.0), SHORT)
    assert not torch.equal(both[0], both[1])
    for i in range(2):
        assert torch.equal(both[i : i + 1], upscale(pipeline, pictures[i : i + 1], Size(scale=2.0), SHORT))


def test_a_run_can_be_stopped(pipeline: SDXLRestorer) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> bool:
        seen.append((done, total))
        return done < 2

    with pytest.raises(Cancelled):
        pipeline.restore(picture(), replace(SHORT, steps=5), stop)
    assert seen == [(1, 5), (2, 5)]
    # Nothing of the stopped run stays hooked in.
    assert not pipeline.unet.get_submodule("conv_in")._forward_hooks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype: torch.dtype, files: Everything, tmp_path: Path) -> None:
    rest: Any = {"model": files.checkpoint, "base": files.sdxl, **files.saved}
    rest["guidance"] = peam_file(tmp_path / "guidance.safetensors", loud=True, aligned=True)
    exact = SDXLRestorer.load(Given(**rest), say=str)
    half = SDXLRestorer.load(Given(**rest, dtype=str(dtype)[6:]), say=str)
    assert {p.dtype for p in half.unet.parameters()} == {dtype}
    assert half.guidance is not None
    assert {p.dtype for p in half.guidance.peam.parameters()} == {torch.float32}
    assert {p.dtype for p in half.guidance.lq_encoder.parameters()} == {torch.float32}
    for lq in (picture(), torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)):
        a, b = exact.restore(lq, SHORT), half.restore(lq, SHORT)
        assert torch.isfinite(b).all()
        assert float((a - b).abs().max()) < 0.1


def test_numbers_that_overflow_are_an_error_not_a_black_picture(files: Everything) -> None:
    half = SDXLRestorer.load(Given(model=files.faithdiff, base=files.sdxl, dtype="float16"), say=str)
    with torch.no_grad():
        half.unet.get_submodule("conv_out").bias.fill_(float("inf"))  # type: ignore[operator]
    with pytest.raises(PGPError, match="overflow in float32 too"):
        half.restore(picture(), SHORT)
    with torch.no_grad():
        half.unet.get_submodule("conv_out").bias.zero_()  # type: ignore[operator]
        half.vae.module.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(PGPError, match="VAE decodes"):
        half.restore(picture(), SHORT)
