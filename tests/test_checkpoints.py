"""Reading and writing safetensors files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pgp_core.errors import CheckpointError
from pgp_core.files import checkpoints
from pgp_core.files.checkpoints import read_safetensors, sha256, write_safetensors

TENSORS = {
    "a.weight": torch.arange(12.0).view(3, 4),
    "b": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "c": torch.tensor([[3.0]], dtype=torch.bfloat16),
    "d": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros(0, 3),
    "not contiguous": torch.arange(6.0).view(2, 3).t(),
    "channels last": torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS, {"pgp.plan": "{}", "name": "ü"})
    return path


def test_round_trip(file: Path) -> None:
    tensors, metadata = read_safetensors(file)
    assert metadata == {"pgp.plan": "{}", "name": "ü"}
    assert tensors.keys() == TENSORS.keys()
    for k, v in TENSORS.items():
        assert tensors[k].dtype == v.dtype
        assert torch.equal(tensors[k], v)


def test_the_file_is_what_the_library_reads(file: Path) -> None:
    with safe_open(file, framework="pt") as f:
        assert set(f.keys()) == TENSORS.keys()
        assert torch.equal(f.get_tensor("a.weight"), TENSORS["a.weight"])


def test_a_file_without_metadata(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    assert read_safetensors(str(tmp_path / "x.safetensors"))[1] == {}


def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.safetensors"
    write_safetensors(path, {"a": torch.ones(2)})
    assert os.listdir(path.parent) == ["x.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_who_may_read_the_file_is_the_umask_s_to_say(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_safetensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o666 & ~umask


def test_writing_again_replaces(file: Path) -> None:
    write_safetensors(file, {"only": torch.zeros(1)})
    assert list(read_safetensors(file)[0]) == ["only"]
    assert os.listdir(file.parent) == [file.name]


# -- files that are none -----------------------------------------------------------------------------------


def refused(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(CheckpointError) as error:
        read_safetensors(path)
    message = str(error.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "no file" in refused(tmp_path / "nowhere.safetensors")
    assert "no file" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.99])
def test_a_truncated_file(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in refused(file)


def test_a_file_that_lacks_its_last_byte_or_has_one_more(file: Path) -> None:
    content = file.read_bytes()
    for wrong in (content[:-1], content + b"\0"):
        file.write_bytes(wrong)
        assert "damaged" in refused(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"just some text, longer than a header's length",
        b"\xff" * 64,
        b"PK\x03\x04 a pickled .bin file is a zip archive" + b"\0" * 100,
        (2).to_bytes(8, "little") + b"{}garbage",
        (10**9).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"{{{{",
    ],
    ids=["empty", "short", "text", "ones", "zip", "more data", "header too long", "header no JSON"],
)
def test_other_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 10**12]},
        {"shape": [2], "data_offsets": [0, 8]},
    ],
    ids=["another size", "another dtype", "beyond the end", "no dtype"],
)
def test_a_header_that_lies(tmp_path: Path, entry: dict[str, Any]) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    assert "damaged" in refused(path)


# -- writes that fail --------------------------------------------------------------------------------------


def half_written(tensors: Any, path: str, metadata: Any) -> None:
    """A disk that fills up."""
    Path(path).write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(checkpoints, "save_file", half_written)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written.*No space left"):
        write_safetensors(file, TENSORS)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(tensors: Any, path: str, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path / "x.safetensors", TENSORS)
    assert os.listdir(tmp_path) == []


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_safetensors(tmp_path / "x.safetensors", TENSORS)
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, since a superuser may write anywhere."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(CheckpointError, match=r"cannot be written.*Permission denied"):
        write_safetensors(tmp_path / "x.safetensors", TENSORS)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(file: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_safetensors(file / "x.safetensors", TENSORS)


def test_tensors_that_share_memory_are_written_once_each(tmp_path: Path) -> None:
    whole = torch.arange(8.0)
    write_safetensors(tmp_path / "x.safetensors", {"whole": whole, "same": whole, "half": whole[:4]})
    tensors, _ = read_safetensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["same"], whole)
    assert torch.equal(tensors["half"], whole[:4])


# -- digest ------------------------------------------------------------------------------------------------


def test_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(3_000_000))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256(path) == expected
    # Python 3.10 has no hashlib.file_digest.
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert sha256(path) == expected
