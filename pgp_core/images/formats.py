"""Which formats are read, and what to say of a file in another.

A file is what its first bytes say, whatever its name. Only the formats listed here are ever opened: Pillow knows more,
of which some start other programs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import PictureError

#: Pillow's names.
_ALWAYS = ("PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "PPM", "PSD", "QOI", "DDS", "PCX", "SGI")
#: Formats that some installations read: Pillow's name to the package that brings it, and the module to import.
_PLUGINS = {
    "AVIF": ("pillow-avif-plugin", "pillow_avif"),
    "HEIF": ("pillow-heif", "pillow_heif"),
    "JXL": ("pillow-jxl-plugin", "pillow_jxl"),
}
_CALLED = {"AVIF": "AVIF", "HEIF": "HEIC or another HEIF", "JXL": "JPEG XL"}
#: It has no signature: only its name shows what it is.
_BY_NAME = {"TGA": (".tga", ".icb", ".vda", ".vst")}
#: Endings that Pillow knows only with the package.
_PLUGINS_ENDINGS = {".avif": "AVIF", ".avifs": "AVIF", ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JXL"}

#: Cameras' raw files by their endings.
RAW = frozenset(
    f".{name}"
    for name in (
        *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "k25", "kdc", "mef", "mos", "mrw"),
        *("nef", "nrw", "orf", "ori", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
    )
)
_RAW_BEGINNINGS = (
    (0, b"IIRO", "ORF"),
    (0, b"IIRS", "ORF"),
    (0, b"MMOR", "ORF"),
    (0, b"IIU\0", "RW2"),
    (8, b"CR\2", "CR2"),
    (6, b"HEAPCCDR", "CRW"),
    (0, b"FUJIFILMCCD-RAW", "RAF"),
    (0, b"\0MRM", "MRW"),
    (0, b"FOVb", "X3F"),
    (4, b"ftypcrx ", "CR3"),
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHERS = (
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"%PDF", "a PDF"),
    (b"<svg", "an SVG"),
    (b"<?xml", "an XML file, perhaps an SVG"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (b"\0\0\1\0", "an icon"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"v/1\1", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
)
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")


@dataclass(frozen=True)
class Kind:
    """What a file is by its first bytes.

    Attributes:
        name: Pillow's name of a format that this package takes apart itself or that needs a plugin, else "".
        formats: those that Pillow may open it as.
    """

    name: str
    formats: tuple[str, ...]


def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read here, as it is installed."""
    Image.init()
    return tuple(name for name in (*_ALWAYS, *_PLUGINS) if name in Image.OPEN)


def known_endings() -> set[str]:
    """Endings of the formats that are read, lower case, with the dot.

    Formats whose package is missing are among them, so that people with such files are told which one it is. Raws
    are not: they lie beside the pictures made of them.
    """
    known = {*_ALWAYS, *_PLUGINS, *_BY_NAME}
    pillows = {ending for ending, name in Image.registered_extensions().items() if name in known}
    return pillows | _PLUGINS_ENDINGS.keys()


def kind_of(path: Path, head: bytes) -> Kind:
    """What a file is by its first bytes.

    Args:
        head: 64 of them.

    Raises:
        PictureError: if it is none that can be read; the message says what it is and what to do.
    """
    if not head:
        raise PictureError(f"{path} is empty")
    for at, beginning, name in _RAW_BEGINNINGS:
        if head[at : at + len(beginning)] == beginning:
            raise raw(path, name)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return Kind("PNG", ("PNG",))
    if head[:3] == b"\xff\xd8\xff":
        return Kind("JPEG", ("JPEG",))
    if head[:4] in _TIFF:
        return Kind("TIFF", ("TIFF",))
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind("WEBP", ("WEBP",))
    if plugin := _boxed(path, head):
        _load(path, plugin)
        return Kind(plugin, (plugin,))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, what in _OTHERS:
        if text.startswith(beginning) or head.startswith(beginning):
            raise PictureError(f"{path} is {what}, which is not read here: convert it to PNG, TIFF, JPEG or WebP")
    by_name = tuple(name for name, endings in _BY_NAME.items() if path.suffix.lower() in endings)
    names = tuple(n for n in formats() if n not in ("PNG", "JPEG", "MPO", "TIFF", "WEBP", *_PLUGINS))
    return Kind("", names + by_name)


def _boxed(path: Path, head: bytes) -> str:
    """AVIF, HEIF and JPEG XL by Pillow's names, or ""."""
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JXL"
    if head[4:8] != b"ftyp":
        return ""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)), 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    if any(brand in _HEIF for brand in brands):
        return "HEIF"
    raise PictureError(f"{path} is a video, which is not read here: save its frames as pictures")


def _load(path: Path, name: str) -> None:
    """Make Pillow know a format.

    Raises:
        PictureError: if the package is missing; the message names it.
    """
    Image.init()
    package, module = _PLUGINS[name]
    if name not in Image.OPEN:
        try:
            plugin = importlib.import_module(module)
            # Some register themselves.
            getattr(plugin, f"register_{name.lower()}_opener", lambda: None)()
        except ImportError:
            pass
    if name not in Image.OPEN:
        newer = ' (or a newer Pillow: pip install -U "pillow>=11.3")' if name == "AVIF" else ""
        raise PictureError(
            f"{path} is {_CALLED[name]}, which needs a package that reads it: pip install {package}{newer}; or convert "
            "it to PNG, TIFF or JPEG"
        )


def raw(path: Path, name: str = "") -> PictureError:
    """The error that a camera's raw file is."""
    ending = path.suffix.lower()
    name = name or (ending[1:].upper() if ending in RAW else "")
    return PictureError(
        f"{path} is a camera's raw file{f' ({name})' if name else ''}: develop it first (with darktable, RawTherapee "
        "or the camera's own program) and save it as TIFF, PNG or JPEG"
    )
