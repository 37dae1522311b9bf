"""Perceptual measures as losses: values against the evaluation's metric, scikit-image and LPIPS's own library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage
from skimage.metrics import structural_similarity

from pgp_core.errors import CheckpointError, PGPError
from pgp_core.evaluation import metrics
from pgp_core.training.perceptual import Perceptual
from pgp_core.training.perceptual.lpips_vgg import LPIPS, VGG_FILE, default_vgg

Pair = tuple[torch.Tensor, torch.Tensor]


def pair(n: int = 2, height: int = 48, width: int = 40, noise: float = 0.2) -> Pair:
    """Smooth pictures, and the same with noise."""
    g = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(n, 3, 5, 6, generator=g), (height, width), mode="bicubic")
    hq = smooth.clamp(0, 1)
    return (hq + noise * torch.randn(hq.shape, generator=g)).clamp(0, 1), hq


def arrays(pictures: torch.Tensor) -> list[np.ndarray]:
    return [p.permute(1, 2, 0).double().numpy() for p in pictures]


# -- HaarPSI -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 40), (37, 51), (16, 16)])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_haarpsi_is_the_evaluation_s(size: tuple[int, int], noise: float) -> None:
    result, hq = pair(3, *size, noise=noise)
    expected = [1 - metrics.haarpsi(a, b) for a, b in zip(arrays(result), arrays(hq), strict=True)]
    assert min(expected) > 1e-3
    torch.testing.assert_close(
        Perceptual("haarpsi")(result, hq).double(), torch.tensor(expected, dtype=torch.float64), atol=2e-5, rtol=1e-4
    )


# -- MS-SSIM -----------------------------------------------------------------------------------------------


def test_ms_ssim_of_one_scale_is_scikit_image_s_ssim() -> None:
    result, hq = pair(2, 20, 18)
    expected = [
        1
        - structural_similarity(
            a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2
        )
        for a, b in zip(arrays(result), arrays(hq), strict=True)
    ]
    torch.testing.assert_close(Perceptual("ms-ssim")(result, hq), torch.tensor(expected).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("side", "scales"), [(21, 1), (22, 2), (48, 3), (175, 4), (176, 5)])
def test_ms_ssim_by_hand(side: int, scales: int) -> None:
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    weights /= weights.sum()
    result, hq = pair(1, side, side + 9)
    colours = []
    for channel in range(3):
        x, y = (p[0, channel].double().numpy() for p in (result, hq))
        value = 1.0
        for scale in range(scales):

            def blur(z: np.ndarray) -> np.ndarray:
                # 11 pixels: 3.4 standard deviations to either side.
                return ndimage.gaussian_filter(z, 1.5, radius=5)[5:-5, 5:-5]

            mx, my = blur(x), blur(y)
            contrast = (2 * (blur(x * y) - mx * my) + 9e-4) / (blur(x * x) - mx**2 + blur(y * y) - my**2 + 9e-4)
            luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
            value *= (contrast * luminance if scale == scales - 1 else contrast).mean() ** weights[scale]
            rows, columns = (n // 2 * 2 for n in x.shape)
            x, y = (p[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean((1, 3)) for p in (x, y))
        colours.append(value)
    assert Perceptual("ms-ssim")(result, hq).item() == pytest.approx(1 - np.mean(colours), abs=2e-5)


def test_ms_ssim_of_a_crop_smaller_than_its_window() -> None:
    result, hq = pair(1, 8, 6)
    value = Perceptual("ms-ssim")(result, hq)
    assert 0 < value.item() < 1


# -- LPIPS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> Any:
    """The library's own network; its trunk is drawn, its heads are the published ones."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        import lpips

        torch.manual_seed(0)
        # Without drawing the trunk's classifier, which is never used.
        with torch.device("meta"):
            network = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
        network.to_empty(device="cpu").scaling_layer = lpips.ScalingLayer()
        for module in network.net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.reset_parameters()
        heads = Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth"
        network.load_state_dict(torch.load(heads, map_location="cpu", weights_only=True), strict=False)
        return network.eval()


@pytest.fixture(scope="module")
def vgg(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The trunk as torchvision's file has it, where PyTorch looks for it."""
    home: Path = tmp_path_factory.mktemp("torch")
    path = home / "hub" / "checkpoints" / VGG_FILE
    path.parent.mkdir(parents=True)
    weights = {f"features.{k.partition('.')[2]}": v for k, v in library.net.state_dict().items()}
    torch.save(weights | {"classifier.0.bias": torch.zeros(3)}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        yield path
    path.unlink()


def test_lpips_is_its_library_s(library: Any, vgg: Path) -> None:
    result, hq = pair()
    assert default_vgg() == vgg
    with torch.no_grad():
        expected = library(result, hq, normalize=True).flatten()
        ours = Perceptual("lpips")(result, hq)
    assert expected.min() > 1e-3
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)


def test_lpips_takes_a_path_and_safetensors_and_stays_frozen(vgg: Path, tmp_path: Path) -> None:
    tiny = {k: v.half() for k, v in torch.load(vgg, weights_only=True).items()}
    save_file(tiny, tmp_path / "mine.safetensors")
    measure = Perceptual("lpips", str(tmp_path / "mine.safetensors")).train()
    assert not any(p.requires_grad for p in measure.parameters())
    assert not any(m.training for m in measure.lpips.modules())
    result, hq = pair()
    assert measure(result, hq).tolist() == measure(result, hq).tolist(), "no dropout"


def test_without_the_backbone_one_line_says_how_to_place_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / VGG_FILE
    for given, named in (("", place), (str(tmp_path / "x.pth"), tmp_path / "x.pth")):
        with pytest.raises(CheckpointError) as error:
            Perceptual("lpips", given)
        message = str(error.value)
        assert str(named) in message and VGG_FILE in message and "haarpsi+ms-ssim" in message
        assert "\n" not in message


@pytest.mark.parametrize("kind", ["cut", "another network", "pickle", "a list", "narrower"])
def test_a_wrong_backbone_is_refused(kind: str, vgg: Path, tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    if kind == "cut":
        path.write_bytes(vgg.read_bytes()[:100_000])
    elif kind == "pickle":
        torch.save({"features.0.weight": LPIPS}, path)
    else:
        weights: Any = {"conv1.weight": torch.zeros(2)}
        if kind == "a list":
            weights = [torch.zeros(2)]
        if kind == "narrower":
            weights = {"features.0.weight": torch.zeros(32, 3, 3, 3)}
        torch.save(weights, path)
    with pytest.raises(CheckpointError) as error:
        Perceptual("lpips", str(path))
    assert "\n" not in str(error.value)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(PGPError, match="pgp-diffsr\\[train\\]"):
        Perceptual("lpips")


# -- all of them -------------------------------------------------------------------------------------------

NAMES = ("lpips", "efficientnet-lite0", "efficientnet-lite0-x2", "haarpsi", "ms-ssim", "haarpsi+ms-ssim")


@pytest.fixture(params=NAMES)
def measure(request: pytest.FixtureRequest, vgg: Path) -> Perceptual:
    return Perceptual(request.param)


def flat(value: float) -> Callable[[], Pair]:
    return lambda: (torch.full((2, 3, 32, 32), value), pair(2, 32, 32)[1])


CASES: dict[str, Callable[[], Pair]] = {
    "noise": lambda: pair(2, 32, 32),
    "equal": lambda: (pair(2, 32, 32)[1], pair(2, 32, 32)[1]),
    "grey": flat(0.5),
    "black": flat(0.0),
    "white": flat(1.0),
    "both black": lambda: (torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)),
    "both grey": lambda: (torch.full((2, 3, 32, 32), 0.5), torch.full((2, 3, 32, 32), 0.5)),
    "inverse": lambda: (1 - pair(2, 32, 32)[1], pair(2, 32, 32)[1]),
    "beyond the range": lambda: (6 * pair(2, 32, 32)[1] - 3, pair(2, 32, 32)[1]),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_finite(case: str, measure: Perceptual) -> None:
    result, hq = CASES[case]()
    result.requires_grad_()
    value = measure(result, hq)
    assert value.shape == (2,)
    (gradient,) = torch.autograd.grad(value.sum(), result)
    assert value.isfinite().all() and gradient.isfinite().all()
    if case in ("equal", "both black", "both grey"):
        assert value.abs().max() <= 1e-5
    else:
        assert value.min() > 1e-3


def test_the_gradient_lowers_it(measure: Perceptual) -> None:
    result, hq = pair(1, 32, 32)
    result = (0.9 * result + 0.05).requires_grad_()
    before = measure(result, hq)
    (gradient,) = torch.autograd.grad(before.sum(), result)
    after = measure(result - 1e-3 * gradient / gradient.abs().max(), hq)
    assert after.item() < before.item()


def test_gradients_are_the_slope(measure: Perceptual) -> None:
    result, hq = pair(1, 32, 32)
    result = (0.9 * result + 0.05).requires_grad_()
    (gradient,) = torch.autograd.grad(measure(result, hq).sum(), result)
    # HaarPSI bends sharply: its magnitudes have a kink at 0.
    step = 2e-4 * gradient.sign()
    with torch.no_grad():
        slope = (measure(result + step, hq) - measure(result - step, hq)).item() / 2
    assert slope == pytest.approx((gradient * step).sum().item(), rel=0.05)


def test_pictures_of_a_batch_are_judged_by_themselves(measure: Perceptual) -> None:
    result, hq = pair(3, 32, 32)
    apart = torch.cat([measure(result[i : i + 1], hq[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(measure(result, hq), apart, atol=1e-6, rtol=1e-4)


def test_float32_inside_autocast(measure: Perceptual) -> None:
    result, hq = pair(1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = measure(result, hq)
        half = measure(result.bfloat16(), hq)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, measure(result, hq))


def test_a_joined_name_is_the_mean() -> None:
    result, hq = pair()
    one, other = (Perceptual(n)(result, hq) for n in ("haarpsi", "ms-ssim"))
    torch.testing.assert_close(Perceptual("haarpsi + ms-ssim")(result, hq), (one + other) / 2)
