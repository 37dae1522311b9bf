"""Files that hold no weights, recognised by their names and first bytes."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError

_TAKE = "take the model's safetensors file"
_SUFFIXES = {
    ".onnx": f"is an ONNX model, a fixed graph: {_TAKE}",
    ".mlmodel": f"is a Core ML model, made for Apple's devices: {_TAKE}",
    ".engine": f"is a TensorRT engine, made for one graphics card: {_TAKE}",
    ".trt": f"is a TensorRT engine, made for one graphics card: {_TAKE}",
    ".tflite": f"is a TensorFlow Lite model: {_TAKE}",
    ".h5": f"is a Keras model: {_TAKE}",
    ".msgpack": f"is a Flax model: {_TAKE}",
    ".yaml": "holds settings, no weights: give the file of weights",
    ".toml": "holds settings, no weights: give the file of weights",
    ".json": "holds settings, no weights: give its folder, or the file of weights",
    ".part": "is an unfinished download: get it again",
    ".crdownload": "is an unfinished download: get it again",
}
_STARTS = (
    (b"GGUF", "is quantised (GGUF): take the unquantised file, or one in fp8 to save memory"),
    (b"version https://git-lfs", "is Git LFS's pointer to the file, not the file: run git lfs pull, or download it"),
    (b"\x89PNG", "is a picture, no model: choose another file"),
    (b"\xff\xd8\xff", "is a picture, no model: choose another file"),
    (b"Rar!", "is an archive: unpack it and give the file of weights"),
    (b"7z\xbc\xaf", "is an archive: unpack it and give the file of weights"),
    (b"\x1f\x8b", "is an archive: unpack it and give the file of weights"),
)
#: Bytes that :func:`refuse_others` looks at.
LENGTH = 64


def refuse_others(path: Path, start: bytes) -> None:
    """Say what a file is that holds no weights.

    Args:
        start: its first :data:`LENGTH` bytes.

    Raises:
        CheckpointError: for a kind that is known.
    """
    what = next((text for mark, text in _STARTS if start.startswith(mark)), None)
    what = what or _SUFFIXES.get(path.suffix.lower())
    if what is None and start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "is a web page, not the model (damaged or no PyTorch file): get it again"
    if what is not None:
        raise CheckpointError(f"{path.name} {what}")


def is_safetensors(start: bytes) -> bool:
    """Whether a file begins as safetensors do: the header's length, then the header."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30 and not is_torch(start)


def is_torch(start: bytes) -> bool:
    """Whether a file begins as those of ``torch.save`` do: a zip archive, or a pickle."""
    return start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
