"""Files that hold no weights, recognised by their names and first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError


@dataclass(frozen=True)
class NoWeights:
    """What a file is that holds no weights that can be read.

    Attributes:
        what: in words: "a picture, no model".
        advice: what to do.
        failed: it stands where a model should be: a download that did not succeed.
    """

    what: str
    advice: str
    failed: bool = False


_TAKE = "take the model's safetensors file"
_UNPACK = "unpack it and give the file of weights"
_SETTINGS = NoWeights("a file of settings, no weights", "give the file of weights")
_PICTURE = NoWeights("a picture, no model", "choose another file")
_ARCHIVE = NoWeights("an archive", _UNPACK)
_ENGINE = NoWeights("a TensorRT engine, made for one graphics card", _TAKE)
_ENDED = NoWeights("an unfinished download", "get it again", True)
_PAGE = NoWeights("a web page, not the model (damaged or no PyTorch file)", "get it again", True)
_LINE = NoWeights("text, not the model (damaged or no PyTorch file)", "get it again", True)
_TEXT = NoWeights("text, no model", "choose another file")
_WEIGHTS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
_GGUF_ADVICE = "take the unquantised file, or one in fp8 to save memory"
_SUFFIXES = {
    ".onnx": NoWeights("an ONNX model, a fixed graph", _TAKE),
    ".mlmodel": NoWeights("a Core ML model, made for Apple's devices", _TAKE),
    ".engine": _ENGINE,
    ".trt": _ENGINE,
    ".tflite": NoWeights("a TensorFlow Lite model", _TAKE),
    ".h5": NoWeights("a Keras model", _TAKE),
    ".msgpack": NoWeights("a Flax model", _TAKE),
    ".yaml": _SETTINGS,
    ".toml": _SETTINGS,
    ".json": NoWeights(_SETTINGS.what, "give its folder, or the file of weights"),
    ".part": _ENDED,
    ".crdownload": _ENDED,
    ".zip": _ARCHIVE,
}
_STARTS = (
    (
        b"version https://git-lfs",
        NoWeights("Git LFS's pointer to the file, not the file", "run git lfs pull, or download it", True),
    ),
    (b"\x89PNG", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"GIF8", _PICTURE),
    (b"%PDF", NoWeights("a document (PDF), no model", "choose another file")),
    (b"Rar!", _ARCHIVE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"\x1f\x8b", _ARCHIVE),
    (b"\x93NUMPY", NoWeights("an array of NumPy's, no model", "choose another file")),
)
#: JSON files of ours, by the name of their format.
_OURS = {
    b'"pgp-diffsr/prune-plan"': NoWeights("a prune plan", "give it with --plan, or put it into models/pgp_plans"),
    b'"pgp-diffsr/redundancy-report"': NoWeights(
        "a redundancy report", "make a plan of it: pgp-diffsr plan build --report FILE"
    ),
}
#: What GGUF files call models that people have.
_GGUF = {
    "flux": "Flux",
    "sd1": "Stable Diffusion 1.5",
    "sdxl": "SDXL",
    "sd3": "Stable Diffusion 3",
    "aura": "AuraFlow",
    "ltxv": "LTX-Video",
    "hyvid": "HunyuanVideo",
    "wan": "Wan",
    "hidream": "HiDream",
    "cosmos": "Cosmos",
    "lumina2": "Lumina Image 2 or Z-Image",
    "qwen_image": "Qwen-Image",
    "t5": "a T5 text encoder",
    "t5encoder": "a T5 text encoder",
    "llama": "a language model",
    "qwen2vl": "a Qwen text encoder",
    "qwen3": "a Qwen text encoder",
}
_ARCHITECTURE = re.compile(rb"general\.architecture\x08\0\0\0(.)\0{7}", re.DOTALL)
#: Bytes that :func:`no_weights` looks at.
LENGTH = 1024


def no_weights(path: Path, start: bytes) -> NoWeights | None:
    """What a file is that holds no weights; None where it may hold some.

    Args:
        start: its first :data:`LENGTH` bytes.
    """
    if start.startswith(b"GGUF"):
        return NoWeights(f"quantised (GGUF{_architecture(start)})", _GGUF_ADVICE)
    if found := next((kind for mark, kind in _STARTS if start.startswith(mark)), None):
        return found
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _PICTURE
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return _PAGE
    if found := next((kind for name, kind in _OURS.items() if start.lstrip()[:1] == b"{" and name in start), None):
        return found
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES and start and is_text(start):
        # What a server says in place of a file is often a line of text.
        return _LINE if suffix in _WEIGHTS else _TEXT
    return _SUFFIXES.get(suffix)


def refuse_others(path: Path, start: bytes) -> None:
    """Say what a file is that holds no weights.

    Args:
        start: its first :data:`LENGTH` bytes.

    Raises:
        CheckpointError: for a kind that is known.
    """
    if what := no_weights(path, start):
        raise CheckpointError(f"{path.name} is {what.what}: {what.advice}")


def _architecture(start: bytes) -> str:
    """What a GGUF file says of itself near its beginning, where it mostly stands."""
    found = _ARCHITECTURE.search(start)
    if found is None:
        return ""
    name = start[found.end() : found.end() + found[1][0]].decode("ascii", "replace")
    return f" of {_GGUF[name]}" if name in _GGUF else ""


def is_text(start: bytes) -> bool:
    """Whether a file begins as one that a person reads."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as e:
        # The last character may be cut.
        if e.start < len(start) - 3:
            return False
        text = start[: e.start].decode("utf-8")
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)


def holds_weights(path: Path) -> bool:
    """Whether a file begins as those do that hold weights."""
    with path.open("rb") as file:
        start = file.read(LENGTH)
    return is_safetensors(start) or is_torch(start) or start.startswith(b"GGUF")


def is_safetensors(start: bytes) -> bool:
    """Whether a file begins as safetensors do: the header's length, then the header."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30 and not is_torch(start)


def is_torch(start: bytes) -> bool:
    """Whether a file begins as those of ``torch.save`` do: a zip archive, or a pickle."""
    return start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
