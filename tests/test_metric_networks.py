"""LPIPS and DISTS against their authors' library and formula on drawn backbones; pyiqa's with a pretended pyiqa."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

pytest.importorskip("torchmetrics", reason='LPIPS and DISTS need torchmetrics: pip install "pgp-diffsr[eval]"')
import torchmetrics
import torchvision

from pgp_core.errors import PGPError, WrongUsage
from pgp_core.evaluation.metrics import networks, through_pyiqa
from pgp_core.evaluation.metrics.offline import offline
from pgp_core.files.backbones import ALEXNET, VGG16

SIZES = [(64, 64), (47, 83)]


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 9.0
    hq = np.stack([0.5 + 0.4 * np.sin(x + c) * np.cos(y - c / 2) for c in range(3)], -1)
    return np.clip(hq + rng.normal(0, 0.1, hq.shape), 0, 1), hq


def drawn(name: str) -> dict[str, torch.Tensor]:
    """Convolutions that keep their input's size of values, and a classifier that nobody needs."""
    g = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(weights=None).features.state_dict()
    return {
        f"features.{k}": torch.randn(v.shape, generator=g) * (2 / v[0].numel()) ** 0.5
        if v.ndim > 1
        else torch.randn(v.shape, generator=g) * 0.1
        for k, v in shapes.items()
    } | {"classifier.1.bias": torch.zeros(3)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backbones")
    found = {"lpips": folder / "alex.pth", "dists": folder / "vgg.pth"}
    torch.save(drawn("alexnet"), found["lpips"])
    torch.save(drawn("vgg16"), found["dists"])
    return found


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty torch hub cache; whoever asks for another machine fails the test."""

    def asked(host: Any, *args: Any, **kwargs: Any) -> None:
        pytest.fail(f"{host} was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def one(name: str, files: dict[str, Path], **options: Any) -> Callable[..., float]:
    measures, missing = networks.load([name], backbones={name: files[name]}, **options)
    assert not missing
    return measures[name]


# -- LPIPS and DISTS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_lpips_is_its_authors_library_s(files: dict[str, Path], size: tuple[int, int]) -> None:
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)
    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
    theirs.load_state_dict(torch.load(heads, map_location="cpu", weights_only=True), strict=False)
    weights = drawn("alexnet")
    theirs.net.load_state_dict({k: weights[f"features.{k.partition('.')[2]}"] for k in theirs.net.state_dict()})
    bad, hq = pair(*size)
    a, b = (torch.tensor(p).permute(2, 0, 1)[None].float() for p in (bad, hq))
    with torch.no_grad():
        expected = float(theirs.eval()(a, b, normalize=True))
    assert expected > 1e-3
    measure = one("lpips", files)
    # The two differ in what they add to a length before they divide by it.
    assert measure(bad, hq) == pytest.approx(expected, rel=1e-4)
    assert measure(hq, hq) == 0


def dists(x: torch.Tensor, y: torch.Tensor, weights: dict[str, torch.Tensor]) -> float:
    """After Ding, Ma, Wang and Simoncelli (2020), equations 4 to 7, in float64."""
    window = torch.outer(*[torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)] * 2)
    window /= window.sum()

    def maps(picture: torch.Tensor) -> list[torch.Tensor]:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        found, h = [picture], (picture - mean) / std
        layer = iter(range(0, 30))
        for stage, convolutions in enumerate((2, 2, 3, 3, 3)):
            if stage:
                next(layer)  # VGG's maximum, which a smooth pooling stands in for
                h = F.conv2d(h[:, None] ** 2, window[None, None], stride=2, padding=1)[:, 0].add(1e-12).sqrt()
            for _ in range(convolutions):
                number = next(layer)
                kernel, bias = (weights[f"features.{number}.{part}"].double() for part in ("weight", "bias"))
                h = F.conv2d(h[None], kernel, bias, padding=1)[0].relu()
                next(layer)
            found.append(h)
        return found

    learned = Path(torchmetrics.__file__).parent / "functional" / "image" / "dists_models" / "weights.pt"
    alpha, beta = (torch.load(learned, weights_only=True)[k].double().flatten() for k in ("alpha", "beta"))
    total, channel = 0.0, 0
    for a, b in zip(maps(x), maps(y), strict=True):
        for p, q in zip(a, b, strict=True):
            texture = (2 * p.mean() * q.mean() + 1e-6) / (p.mean() ** 2 + q.mean() ** 2 + 1e-6)
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            structure = (2 * covariance + 1e-6) / (p.var(correction=0) + q.var(correction=0) + 1e-6)
            total += float(alpha[channel] * texture + beta[channel] * structure)
            channel += 1
    assert channel == len(alpha)
    return 1 - total / float(alpha.sum() + beta.sum())


@pytest.mark.parametrize("size", [(64, 64), (47, 83), (5, 3)])
def test_dists_is_its_paper_s(files: dict[str, Path], size: tuple[int, int]) -> None:
    bad, hq = pair(*size)
    expected = dists(*(torch.tensor(p).permute(2, 0, 1) for p in (bad, hq)), drawn("vgg16"))
    assert expected > 1e-3
    measure = one("dists", files)
    assert measure(bad, hq) == pytest.approx(expected, abs=1e-5)
    assert measure(hq, hq) == pytest.approx(0, abs=1e-5)


def test_both_at_once_leave_torchmetrics_as_it_was(files: dict[str, Path]) -> None:
    from torchmetrics.functional.image import dists as theirs

    before = theirs.vgg16
    measures, missing = networks.load(["psnr_y", "dists", "lpips", "niqe"], backbones=files)
    assert list(measures) == ["dists", "lpips"] and not missing
    assert theirs.vgg16 is before


def test_the_older_format_of_torchvision_s_files(files: dict[str, Path], tmp_path: Path) -> None:
    weights = {k: torch.nn.Parameter(v) for k, v in drawn("alexnet").items()}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    bad, hq = pair(40, 50)
    assert one("lpips", {"lpips": tmp_path / "old.pth"})(bad, hq) == one("lpips", files)(bad, hq)


def test_weights_in_half_precision_and_safetensors(files: dict[str, Path], tmp_path: Path) -> None:
    half = {k: v.half() for k, v in drawn("alexnet").items()}
    save_file(half, tmp_path / "alex.safetensors")
    bad, hq = pair(40, 50)
    value = one("lpips", {"lpips": tmp_path / "alex.safetensors"})(bad, hq)
    assert value == pytest.approx(one("lpips", files)(bad, hq), rel=1e-2)


def test_lpips_needs_31_pixels(files: dict[str, Path]) -> None:
    measure = one("lpips", files)
    assert measure(*pair(31, 31)) > 0
    with pytest.raises(PGPError, match="at least 31x31 pixels, not 64x30"):
        measure(*pair(30, 64))
    with pytest.raises(PGPError, match="different sizes cannot be compared: 40x40 and 44x40"):
        measure(pair(40, 40)[0], pair(40, 44)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN ON CUDA: there is none")
@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_cuda_gives_the_same_figures(files: dict[str, Path], name: str) -> None:
    bad, hq = pair(301, 203)
    assert one(name, files, device="cuda")(bad, hq) == pytest.approx(one(name, files)(bad, hq), abs=2e-5)


# -- Backbones ---------------------------------------------------------------------------------------------


def test_the_names_are_torchvision_s() -> None:
    assert ALEXNET.url == torchvision.models.AlexNet_Weights.DEFAULT.url
    assert VGG16.url == torchvision.models.VGG16_Weights.DEFAULT.url


@pytest.mark.parametrize(("name", "backbone"), [("lpips", ALEXNET), ("dists", VGG16)])
def test_without_a_backbone_one_line_says_what_to_do(name: str, backbone: Any, nowhere: Path) -> None:
    measures, missing = networks.load([name, "psnr_y"])
    assert not measures and list(missing) == [name]
    for word in (backbone.name, backbone.url, str(nowhere / backbone.file), f"--backbone {name}=FILE", "--download"):
        assert word in missing[name]
    assert "\n" not in missing[name]


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_a_backbone_is_found_in_the_hub_s_cache(name: str, files: dict[str, Path], nowhere: Path) -> None:
    nowhere.mkdir(parents=True)
    (nowhere / networks.BACKBONES[name].file).symlink_to(files[name])
    measures, missing = networks.load([name])
    assert not missing and measures[name](*pair(40, 40)) == one(name, files)(*pair(40, 40))


def test_download_fetches_it_once_to_its_place(
    files: dict[str, Path], nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fetch(url: str, place: str, prefix: str, progress: bool) -> None:
        calls.append((url, place, prefix))
        Path(place).write_bytes(files["lpips"].read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        assert not networks.load(["lpips"], download=True)[1]
    assert calls == [(ALEXNET.url, str(nowhere / ALEXNET.file), "7be5be79")]


def test_a_failed_download_is_one_line(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    reason = networks.load(["dists"], download=True)[1]["dists"]
    assert "VGG-16 cannot be downloaded (no route)" in reason and str(nowhere / VGG16.file) in reason


@pytest.mark.parametrize("kind", ["cut", "pickle", "a list", "another network", "narrower", "swapped", "not there"])
def test_a_wrong_backbone_is_one_line(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "alex.pth"
    if kind == "cut":
        path.write_bytes(files["lpips"].read_bytes()[:100_000])
    elif kind == "swapped":
        path = files["dists"]
    elif kind != "not there":
        weights: Any = {
            "pickle": {"features.0.weight": PGPError},
            "a list": [torch.zeros(2)],
            "another network": {"conv1.weight": torch.zeros(2)},
            "narrower": drawn("alexnet") | {"features.3.weight": torch.zeros(96, 64, 5, 5)},
        }[kind]
        torch.save(weights, path)
    measures, missing = networks.load(["lpips"], backbones={"lpips": path})
    assert not measures and "\n" not in missing["lpips"] and len(missing["lpips"]) > 20


def test_wrong_names_are_refused() -> None:
    with pytest.raises(WrongUsage, match=r"no metric 'lpip': there are psnr_y, ssim, lpips"):
        networks.load(["lpip"])
    with pytest.raises(WrongUsage, match="can be given to lpips and dists, not to 'niqe'"):
        networks.load(["niqe"], backbones={"niqe": "x"})


def test_without_torchmetrics_the_extra_is_named(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    assert 'pip install "pgp-diffsr[eval]"' in networks.load(["lpips"], backbones=files)[1]["lpips"]


# -- pyiqa -------------------------------------------------------------------------------------------------

PRETENDED = """
    import os, socket
    import torch

    print("a word on stdout")
    AT_IMPORT = os.environ.get("HF_HUB_OFFLINE")
    WEIGHTS = {"musiq", "clipiqa", "clipiqa+_vitL14_512"}
    made = []

    def create_metric(name, device=None):
        if name not in WEIGHTS:
            socket.getaddrinfo("huggingface.co", 443)
        made.append((name, device))

        def network(picture):
            print("another word")
            assert picture.shape[:2] == (1, 3) and picture.dtype == torch.float32
            return picture.mean(dim=(1, 2, 3), keepdim=True) + torch.rand(())

        return network
"""


@pytest.fixture
def pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where pyiqa would be installed."""
    folder = tmp_path / "site"
    (folder / "pyiqa").mkdir(parents=True)
    (folder / "pyiqa" / "__init__.py").write_text(textwrap.dedent(PRETENDED))
    (folder / "pyiqa-0.1.16.dist-info").mkdir()
    (folder / "pyiqa-0.1.16.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pyiqa\nVersion: 0.1.16\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield
    sys.modules.pop("pyiqa", None)


def test_pyiqa_is_called_by_the_papers_names(pyiqa: Any, capsys: pytest.CaptureFixture[str]) -> None:
    measures, missing = networks.load(["musiq", "clipiqa+", "clipiqa"])
    assert not missing and list(measures) == ["musiq", "clipiqa+", "clipiqa"]
    module = sys.modules["pyiqa"]
    assert [name for name, _ in module.made] == ["musiq", "clipiqa+_vitL14_512", "clipiqa"]
    assert module.made[0][1] == torch.device("cpu") and module.AT_IMPORT == "1"
    bad, _ = pair(20, 30)
    state = torch.random.get_rng_state()
    value = measures["musiq"](bad)
    # What it draws is the same each time, and takes nothing of what others draw.
    assert value == measures["musiq"](bad) and bad.mean() <= value <= bad.mean() + 1
    assert torch.equal(state, torch.random.get_rng_state())
    assert capsys.readouterr().out == ""
    assert "HF_HUB_OFFLINE" not in os.environ


def test_pyiqa_may_not_download_unless_it_is_let(pyiqa: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measures, missing = networks.load(["maniqa", "musiq"])
    assert list(measures) == ["musiq"]
    assert "maniqa-pipal" in missing["maniqa"] and "huggingface.co is not asked" in missing["maniqa"]
    assert "--download" in missing["maniqa"] and "\n" not in missing["maniqa"]
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a: asked.append(a))
    assert not networks.load(["maniqa"], download=True)[1]
    assert asked == [("huggingface.co", 443)]


def test_without_pyiqa_one_line_says_how_and_under_which_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    for name in through_pyiqa.NAMES:
        reason = networks.load([name])[1][name]
        assert "pip install pyiqa" in reason and "PolyForm Noncommercial" in reason and "\n" not in reason


def test_a_broken_pyiqa_is_one_line(pyiqa: Any, tmp_path: Path) -> None:
    (tmp_path / "site" / "pyiqa" / "__init__.py").write_text("raise AttributeError('numpy.float\\nis gone')")
    assert "cannot be imported (numpy.float)" in networks.load(["musiq"])[1]["musiq"]


def test_the_licence_is_said_where_it_is_used(pyiqa: Any) -> None:
    assert networks.licences(["psnr_y", "lpips", "niqe"]) == []
    (line,) = networks.licences(["musiq", "maniqa"])
    assert line.startswith("pyiqa 0.1.16 has a licence of its own, for noncommercial use only")


def test_offline_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = type(sys)("huggingface_hub.constants")
    constants.HF_HUB_OFFLINE = False
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    resolve = socket.getaddrinfo
    with pytest.raises(KeyError), offline():
        assert constants.HF_HUB_OFFLINE and os.environ["TRANSFORMERS_OFFLINE"] == "1"
        with pytest.raises(OSError, match=r"example\.org is not asked"):
            socket.create_connection(("example.org", 80))
        raise KeyError
    assert socket.getaddrinfo is resolve and not constants.HF_HUB_OFFLINE
    assert os.environ["TRANSFORMERS_OFFLINE"] == "0" and "HF_HUB_OFFLINE" not in os.environ
    with offline(False):
        assert socket.getaddrinfo is resolve
