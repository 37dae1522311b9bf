"""The dial of fidelity against SciPy's Gaussian, and what it does to whole pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from pgp_core.cli import main
from pgp_core.errors import PGPError
from pgp_core.images.color_fix import color_fix
from pgp_core.images.fidelity import follow
from pgp_core.images.frames import Frame
from pgp_core.images.resampling import enlarge
from pgp_core.images.sizes import Size
from pgp_core.images.wrap import MARGIN, Wrap
from pgp_core.progress import Progress
from pgp_core.restorers.recipe import Recipe, decide
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions

#: Beyond five standard deviations lie 6e-7 of a Gaussian's weight, along each axis; the coarse grid leaves as much; and
#: float32 sums of up to 100 products are off by some 1e-6.
TOLERANCE = 5e-6


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def low(x: torch.Tensor, sigma: float, modes: tuple[str, str] = ("reflect", "reflect")) -> np.ndarray:
    """SciPy's, far beyond what ours looks at."""
    # From a certain width on it is the mean, and SciPy would take long over it.
    widths = [min(sigma, 4.0 * n) for n in x.shape[-2:]]
    planes = x.double().numpy().reshape(-1, *x.shape[-2:])
    return np.stack([gaussian_filter(p, widths, mode=modes, truncate=7) for p in planes]).reshape(x.shape)


# -- the Gaussian -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 80), (7, 5), (1, 1), (150, 33)])
@pytest.mark.parametrize("sigma", [0.01, 0.4, 1, 2.5, 4, 11.99, 12, 13.5, 16, 33, 70, 500, 16384])
def test_it_is_the_picture_with_scipys_low_pass_of_the_input(size: tuple[int, int], sigma: float) -> None:
    picture, reference = draw(0, 2, 3, *size), draw(1, 2, 3, *size)
    expected = picture.double().numpy() + low(reference.double() - picture.double(), sigma)
    np.testing.assert_allclose(follow(picture, reference, sigma).numpy(), expected.clip(0, 1), atol=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 120),
    st.integers(1, 40),
    st.integers(1, 130),
    st.sampled_from([0.3, 1.0, 4.0, 11.5, 12.0, 21.0, 300.0]),
    st.booleans(),
)
def test_strips_are_the_whole_bit_for_bit(height: int, width: int, strip: int, sigma: float, transparent: bool) -> None:
    picture, reference = draw(4, 1, 3, height, width), draw(5, 1, 3, height, width)
    alpha = draw(6, 1, 1, height, width).round() if transparent else None
    whole = follow(picture, reference, sigma, 10**6, alpha)
    assert torch.equal(follow(picture, reference, sigma, strip, alpha), whole)


@pytest.mark.parametrize("threads", [1, 2])
def test_strips_of_a_large_picture(threads: int) -> None:
    """Large enough that PyTorch splits its work among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        picture, reference = draw(6, 1, 3, 200, 300), draw(7, 1, 3, 200, 300)
        for sigma in (4, 16):
            assert torch.equal(follow(picture, reference, sigma, 97), follow(picture, reference, sigma, 10**6))
    finally:
        torch.set_num_threads(before)


def test_zero_is_off_bit_for_bit() -> None:
    picture = draw(8, 1, 3, 30, 40)
    assert torch.equal(follow(picture, draw(9, 1, 3, 30, 40), 0), picture)


@pytest.mark.parametrize("sigma", [200, 16384])
def test_wider_than_the_picture_it_is_the_mean(sigma: float) -> None:
    picture, reference = draw(10, 1, 3, 31, 43), 0.3 + 0.4 * draw(11, 1, 3, 31, 43)
    picture = 0.25 + 0.5 * picture
    difference = follow(picture, reference, sigma) - picture
    mean = (reference - picture).mean((-1, -2), keepdim=True)
    torch.testing.assert_close(difference, mean.expand_as(difference), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["x", "y", "both"])
@pytest.mark.parametrize("sigma", [4, 40, 300])
def test_a_texture_goes_on_over_its_border(name: str, sigma: float) -> None:
    """Also where the Gaussian is wider than the margins; what is in those does not matter."""
    wrap, size = Wrap(name), (64, 96)
    picture, reference = draw(12, 1, 3, *size), draw(13, 1, 3, *size)
    modes = ("wrap" if name != "x" else "reflect", "wrap" if name != "y" else "reflect")
    expected = (picture.double().numpy() + low(reference.double() - picture.double(), sigma, modes)).clip(0, 1)
    around = wrap.around(picture, MARGIN)
    found = follow(around, wrap.around(reference, MARGIN), sigma, wrap=wrap)
    assert found.shape == around.shape
    np.testing.assert_allclose(wrap.inner(found, MARGIN).numpy(), expected, atol=TOLERANCE)
    assert torch.equal(found, wrap.around(wrap.inner(found, MARGIN), MARGIN))


# -- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [3, 20])
def test_only_what_is_seen_counts(sigma: float) -> None:
    """A mean of differences weighed by alpha; hidden colours, NaN too, change nothing that is seen."""
    picture, reference = draw(14, 1, 3, 50, 60), draw(15, 1, 3, 50, 60)
    alpha = (draw(16, 1, 1, 50, 60) * 3 - 1).clamp(0, 1)
    found = follow(picture, reference, sigma, alpha=alpha)
    weighed = low((reference - picture).double() * alpha, sigma) / low(alpha, sigma)
    expected = (picture.double().numpy() + weighed).clip(0, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=10 * TOLERANCE)
    other = torch.where(alpha == 0, float("nan"), reference)
    seen = (alpha > 0).expand_as(found)
    assert torch.equal(follow(picture, other, sigma, alpha=alpha)[seen], found[seen])
    opaque = follow(picture, reference, sigma, alpha=torch.ones(1, 1, 50, 60))
    torch.testing.assert_close(opaque, follow(picture, reference, sigma), atol=TOLERANCE, rtol=0)


def test_each_picture_of_a_batch_is_its_own() -> None:
    """So what stands still in a video does not flicker."""
    pictures, references = draw(17, 3, 3, 40, 30), draw(18, 3, 3, 40, 30)
    for sigma in (2, 11):
        batch = follow(pictures, references, sigma)
        for i in range(3):
            assert torch.equal(batch[i : i + 1], follow(pictures[i : i + 1], references[i : i + 1], sigma))
        one = follow(pictures, references[:1], sigma)
        assert torch.equal(one[2:], follow(pictures[2:], references[:1], sigma))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    picture, reference = draw(19, 1, 3, 40, 50).to(dtype), draw(20, 1, 3, 40, 50).to(dtype)
    assert torch.equal(follow(picture, reference, 5), follow(picture.float(), reference.float(), 5))


def test_what_does_not_fit_is_named() -> None:
    a = torch.zeros(1, 3, 8, 8)
    for wrong in (-1.0, float("nan"), float("inf"), 20000.0, True, "4"):
        with pytest.raises(PGPError, match=r"fidelity is .*0 to 16384 pixels \(0 is off\), not"):
            follow(a, a, wrong)  # type: ignore[arg-type]
        with pytest.raises(PGPError, match="fidelity"):
            decide(Recipe(), {"fidelity": wrong})
    with pytest.raises(PGPError, match="reference of the picture's size"):
        follow(a, a[..., :4], 4)
    with pytest.raises(PGPError, match="reference of the picture's size"):
        follow(a.expand(3, -1, -1, -1), a.expand(2, -1, -1, -1), 4)
    with pytest.raises(PGPError, match="alpha of the picture's size"):
        follow(a, a, 4, alpha=a[:, :1, :4])
    with pytest.raises(PGPError, match="margins of 128 pixels"):
        follow(a, a, 4, wrap=Wrap("x"))


# -- the whole way ------------------------------------------------------------------------------------------------


class Stained:
    """A restorer that changes everything: a gradient over the picture, and grain."""

    name = "stained"
    device = torch.device("cpu")

    def __init__(self, enlarges: int = 1, fidelity: float = 0.0):
        self.frame, self.recipe = Frame(16, 32 if enlarges == 1 else 8, enlarges), Recipe(fidelity=fidelity)

    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        large = canvas.repeat_interleave(self.frame.enlarges, -1).repeat_interleave(self.frame.enlarges, -2)
        grain = 0.1 * draw(0, *large.shape[-2:])
        return (large * 0.8 + grain + torch.linspace(0, 0.1, large.shape[-1])).clamp(0, 1)


@pytest.mark.parametrize("enlarges", [1, 2])
@pytest.mark.parametrize("wrap", ["none", "both"])
@pytest.mark.parametrize("channels", [3, 4])
def test_it_is_the_last_that_is_done(enlarges: int, wrap: str, channels: int) -> None:
    """To the same picture as without it; after the colour fix, whichever it is."""
    lq, size = draw(21, 1, channels, 24, 32), Size(scale=4)
    for method in ("none", "adain"):
        off = upscale(Stained(enlarges), lq, size, fix=method, wrap=wrap)
        assert torch.equal(off, upscale(Stained(enlarges), lq, size, fix=method, wrap=wrap, fidelity=0))
        on = upscale(Stained(enlarges), lq, size, fix=method, wrap=wrap, fidelity=4)
        assert torch.equal(on, upscale(Stained(enlarges, 4), lq, size, fix=method, wrap=wrap))
        around = Wrap(wrap)
        large = enlarge(lq, 128, 96, around)
        alpha = None if channels == 3 else around.around(large[:, 3:], MARGIN)
        pair = (around.around(x[:, :3], MARGIN) for x in (off, large))
        expected = around.inner(follow(*pair, 4, alpha=alpha, wrap=around), MARGIN)
        # Beyond the border lies the canvas's frame, where nothing repeats and the model sees the result's size.
        inner = (..., slice(24, -24), slice(24, -24)) if enlarges == 1 and wrap == "none" else (...,)
        torch.testing.assert_close(on[:, :3][inner], expected[inner], atol=TOLERANCE, rtol=0)
        assert torch.equal(on[:, 3:], off[:, 3:])


def test_the_wavelet_fix_is_nearly_the_same_as_a_wide_one() -> None:
    """Its levels' variances add up to 170.5, so its sigma is 13."""
    picture, reference = 0.3 + 0.4 * draw(22, 1, 3, 200, 200), 0.3 + 0.4 * draw(23, 1, 3, 200, 200)
    wavelet, dial = color_fix(picture, reference) - picture, follow(picture, reference, 170.5**0.5) - picture
    inner = (..., slice(64, -64), slice(64, -64))
    assert (wavelet[inner] - dial[inner]).abs().max() < 0.2 * wavelet[inner].abs().max()


def test_16_bits_and_alpha_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes of it is what comes of the result without it, by the same formula, in 16 bits."""
    levels = (draw(24, 20, 28) * 65535).round().numpy().astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    rgba = (draw(25, 20, 28, 4) * 255).round().numpy().astype(np.uint8)
    rgba[..., 3] = np.where(rgba[..., 3] > 100, 255, 0)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    for name in ("deep", "clear"):
        for dial in ("off", "0", "3"):
            target = tmp_path / f"{name}-{dial}.png"
            assert main(["upscale", str(tmp_path / f"{name}.png"), "-o", str(target), "--fidelity", dial]) == 0
        assert (tmp_path / f"{name}-off.png").read_bytes() == (tmp_path / f"{name}-0.png").read_bytes()
    inner = (slice(24, -24), slice(24, -24))
    off, on = (np.asarray(Image.open(tmp_path / f"deep-{d}.png")).astype(np.float64) for d in ("off", "3"))
    assert on.max() > 255
    large = enlarge(torch.from_numpy(levels.astype(np.float32) / 65535)[None, None], 112, 80)[0, 0].double().numpy()
    expected = (off / 65535 + gaussian_filter(large - off / 65535, 3, truncate=7)).clip(0, 1) * 65535
    # Rounded and clipped before and after; of three channels that are nearly equal.
    assert np.abs(on - expected)[inner].mean() < 40 and np.abs(on - off).mean() > 400
    off, on = (np.asarray(Image.open(tmp_path / f"clear-{d}.png")).astype(int) for d in ("off", "3"))
    assert np.array_equal(off[..., 3], on[..., 3])
    assert np.abs(off - on)[..., :3].mean() > 1
    capsys.readouterr()
    for wrong in ("-1", "nan", "inf", "1e9", "on"):
        with pytest.raises(SystemExit) as stopped:
            main(["upscale", str(tmp_path / "deep.png"), "-o", str(tmp_path / "x.png"), "--fidelity", wrong])
        assert stopped.value.code == 2
        assert "--fidelity" in capsys.readouterr().err
