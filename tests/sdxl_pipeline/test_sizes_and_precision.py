"""Sizes, batches, stopping, half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sdxl_scene import SHORT, Everything, peam_file, picture

from pgp_core.errors import PGPError
from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer


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
