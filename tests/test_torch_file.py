"""Files of ``torch.save`` that strangers made: looked through before anything of them is unpickled."""

from __future__ import annotations

import resource
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import archives
import pytest
import torch
from archives import Entry

from pgp_core.errors import CheckpointError
from pgp_core.files import torch_file
from pgp_core.files.weights import open_weights
from pgp_core.training.state import load_state

WEIGHTS = {"a.weight": torch.arange(12.0).view(3, 4), "b.weight": torch.arange(5.0).half()}


def _refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error, open_weights(path):
        pass
    text = str(error.value)
    assert path.name in text and "\n" not in text
    return text


def test_an_archive_that_is_written_anew_without_packing_is_the_same_file(tmp_path: Path) -> None:
    """The kit's own archives are what ``torch.save`` writes: else nothing below would mean anything."""
    path = archives.write(tmp_path / "w.bin", archives.saved(WEIGHTS))
    assert zipfile.ZipFile(path).testzip() is None
    with open_weights(path) as file:
        assert file.mapped
        for name, value in WEIGHTS.items():
            assert torch.equal(file.read(name), value)


def test_a_packed_archive_is_refused_instead_of_read_as_noise(tmp_path: Path) -> None:
    text = _refused(archives.write(tmp_path / "w.bin", archives.packed(archives.saved(WEIGHTS))))
    assert "is packed" in text and "safetensors" in text
    with zipfile.ZipFile(tmp_path / "other.bin", "w", zipfile.ZIP_LZMA) as archive:
        for entry in archives.saved(WEIGHTS):
            archive.writestr(entry.name, entry.data)
    assert "is packed" in _refused(tmp_path / "other.bin")
    # One record is enough.
    one = archives.changed(archives.saved(WEIGHTS), "data/0", lambda e: archives.packed([e])[0])
    assert "is packed" in _refused(archives.write(tmp_path / "one.bin", one))


LIES: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "longer than the file": lambda e: archives.changed(e, "data/0", lambda r: replace(r, size=1 << 20)),
    "longer than any file": lambda e: archives.changed(e, "data/0", lambda r: replace(r, size=1 << 40)),
    "over its neighbour": lambda e: archives.changed(e, "data/0", lambda r: replace(r, size=len(r.data) + 40)),
    "shorter than its tensor": lambda e: archives.changed(e, "data/0", lambda r: replace(r, data=r.data[:-8])),
    "longer than its tensor": lambda e: archives.changed(e, "data/0", lambda r: replace(r, data=r.data + bytes(8))),
    "at another's place": lambda e: archives.changed(e, "data/1", lambda r: replace(r, offset=0)),
    "outside": lambda e: archives.changed(e, "data/1", lambda r: replace(r, offset=1 << 33)),
    "twice": lambda e: [*e, next(r for r in e if r.name.endswith("data/0"))],
    "two pickles": lambda e: [*e, replace(next(r for r in e if r.name.endswith("data.pkl")), name="x/data.pkl")],
    "encrypted": lambda e: archives.changed(e, "data/0", lambda r: replace(r, flags=1)),
    "packed behind its directory": lambda e: archives.changed(e, "data/0", lambda r: replace(r, local_method=8)),
    "of another name there": lambda e: archives.changed(e, "data/0", lambda r: replace(r, local_name="archive/data/7")),
    "without data.pkl": lambda e: [r for r in e if not r.name.endswith("data.pkl")],
    "without a record": lambda e: [r for r in e if not r.name.endswith("data/0")],
    "many records": lambda e: [*e, *(Entry(f"archive/data/x{i}", b"") for i in range(50_001))],
    "a pickle without end": lambda e: archives.changed(e, "data.pkl", lambda r: replace(r, data=r.data[:-1])),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_archives_that_lie_are_refused(lie: str, tmp_path: Path) -> None:
    path = archives.write(tmp_path / "w.bin", LIES[lie](archives.saved(WEIGHTS)))
    assert "is damaged" in _refused(path)
    # A checkpoint of training is as much a stranger's file.
    path.rename(tmp_path / "state.pt")
    with pytest.raises(CheckpointError):
        load_state(tmp_path / "state.pt", {})


@pytest.mark.parametrize("older", [False, True], ids=["zip", "older"])
@pytest.mark.parametrize("value", [archives.Call(bytearray, 1 << 36), archives.Call(print, "ran")], ids=["memory", "x"])
def test_calls_that_no_weights_need_are_not_made(
    value: Any, older: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch's own list of what may be called has a bytearray of any length on it."""
    torch.save({**WEIGHTS, "x": value}, tmp_path / "w.bin", _use_new_zipfile_serialization=not older)
    assert "holds more than weights" in _refused(tmp_path / "w.bin")
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_small_file_does_not_become_hundreds_of_gigabytes(tmp_path: Path) -> None:
    """Each of 40 tensors is 64 GB of the same 4 bytes: nothing of that may be allocated."""
    wide = torch.zeros(1).expand(1 << 34)
    torch.save({f"w{i}": wide for i in range(40)}, tmp_path / "w.bin")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is damaged" in _refused(tmp_path / "w.bin")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    # A view of a small thing stays what it is.
    torch.save({"w": torch.ones(1).expand(1000)}, tmp_path / "small.bin")
    with open_weights(tmp_path / "small.bin") as file:
        assert float(file.read("w").sum()) == 1000


@pytest.mark.parametrize(("version", "safe"), [
    ("2.4.0", False), ("2.9.1+cu128", False), ("2.10.0", True), ("2.14.1+cu130", True), ("3.0.0a0", True),
])  # fmt: skip
def test_pickles_are_opened_by_a_pytorch_that_is_known_to_be_safe(
    version: str, safe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(WEIGHTS, tmp_path / "w.bin")
    monkeypatch.setattr(torch_file.torch, "__version__", version)
    if safe:
        with open_weights(tmp_path / "w.bin") as file:
            assert file.shapes.keys() == WEIGHTS.keys()
        return
    text = _refused(tmp_path / "w.bin")
    assert "update PyTorch to 2.10" in text and ".safetensors" in text and version in text
    torch.save({"format": 2}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="update PyTorch"):
        load_state(tmp_path / "state.pt", {})
    # Safetensors need no pickle, and no new PyTorch.
    from safetensors.torch import save_file

    save_file(WEIGHTS, tmp_path / "w.safetensors")
    with open_weights(tmp_path / "w.safetensors") as file:
        assert torch.equal(file.read("a.weight"), WEIGHTS["a.weight"])


def test_the_extras_ask_for_that_pytorch() -> None:
    """What pip installs beside the command line opens FaithDiff's published file."""
    root = Path(__file__).parents[1]
    wanted = ".".join(map(str, torch_file.SAFE_TORCH))
    assert f'"torch>={wanted}"' in (root / "pyproject.toml").read_text()
    assert "torch" not in [line.split(">")[0] for line in (root / "requirements.txt").read_text().split()]
