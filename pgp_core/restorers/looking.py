"""Looking at files that a user has: what each is, whose restorer, and what that still needs. No weights are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CheckpointError, PGPError
from ..files import diffusers_folder
from ..files.boundary import parsing
from ..files.kinds import LENGTH, no_weights
from ..files.prefixes import find_home
from ..files.weights import WeightsFile, open_weights
from ..files.what_it_is import UNET_HEADS, described, kind_of
from . import own_files
from .family import Family
from .finding import find, recognised
from .given import SHORT_NAME, Given

#: What may hold a model, or says of itself that it is something else.
_LOOKED_AT = (
    *(*diffusers_folder.WEIGHTS, ".pkl", ".gguf", ".onnx", ".mlmodel", ".engine", ".trt", ".tflite", ".h5"),
    *(".msgpack", ".part", ".crdownload"),
)


@dataclass(frozen=True)
class Seen:
    """What a file is.

    Attributes:
        path: of the file, or of the folder that is one model.
        what: in words.
        family: whose restorer it is; None where it is none.
        needs: what a restorer of it still needs, a line each.
        goes: what else it is for: "for --lora …"; empty where that cannot be said.
        error: why it could not be read, with what to do; None where it could.
    """

    path: Path
    what: str
    family: Family | None = None
    needs: tuple[str, ...] = ()
    goes: str = ""
    error: str | None = None


def look(path: Path, beside: Given) -> Seen:
    """What a file, or a folder that is one model, is. Never raises for what the file is or holds.

    Args:
        beside: what else there is, such as a base, so that less is needed.
    """
    try:
        with parsing(path.name, CheckpointError, "get it again"):
            return _look(path, beside)
    except PGPError as e:
        return Seen(path, "a file that cannot be read", error=str(e))


def look_bundled() -> Seen:
    """What the bundled model is."""
    found = find(Given())
    return Seen(Path(SHORT_NAME), found.what, found.family, found.needs)


def each(path: Path) -> Iterator[Path]:
    """The models of a folder that is none itself, also in its folders; else the path itself. Of a model in shards the
    first of them; of JSON files those that are ours."""
    if not path.is_dir() or _is_one(path):
        yield path
        return
    found = False
    for file in _within(path, set()):
        found = True
        yield file
    if not found:
        # To be said to be empty.
        yield path


def _within(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    # A link may lead back up.
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            if _is_one(entry):
                yield entry
            else:
                yield from _within(entry, seen)
        elif entry.suffix.lower() == ".json":
            if own_files.is_ours(entry):
                yield entry
        elif entry.suffix.lower() in _LOOKED_AT and not diffusers_folder.is_later_shard(entry):
            yield entry


def _is_one(folder: Path) -> bool:
    """Whether a folder is one model: a pipeline, a component of one, a LoRA as PEFT or diffusers saves it."""
    if folder.suffix == ".mlpackage" or diffusers_folder.is_pipeline(folder):
        return True
    if own_files.lora_in(folder) is not None:
        return True
    if not (folder / "config.json").is_file() and not any(folder.glob("*.index.json")):
        return False
    try:
        diffusers_folder.weight_files(folder)
    except CheckpointError:
        return False
    return True


def _look(path: Path, beside: Given) -> Seen:
    given = replace(beside, model=path)
    if given.bundled:
        # A file that is called as the bundled model is.
        given = replace(beside, model=path.absolute())
    if not path.exists():
        return Seen(path, "not there", error=f"there is no {path}")
    if path.is_dir():
        if not _is_one(path):
            return Seen(path, "a folder without files of models")
        if path.suffix != ".mlpackage" and diffusers_folder.is_pipeline(path):
            return _of_pipeline(path, given)
        path_of_weights = own_files.lora_in(path) or path
        with open_weights(path_of_weights) as file:
            return _of_weights(path, file, given)
    with path.open("rb") as opened:
        start = opened.read(LENGTH)
    if ours := own_files.of_json(path, start):
        return Seen(path, ours.what, goes=ours.goes)
    if other := no_weights(path, start):
        error = f"{path.name} is {other.what}: {other.advice}" if other.failed else None
        return Seen(path, other.what, goes="" if other.failed else other.advice, error=error)
    with open_weights(path) as file:
        return _of_weights(path, file, given)


def _of_pipeline(path: Path, given: Given) -> Seen:
    """A folder as diffusers saves it: by its UNet, else by its transformer, else by whatever it has."""
    part = next((p for p in ("unet", "transformer", "prior", "decoder", "vae") if (path / p).is_dir()), None)
    if part is None:
        return Seen(path, "a folder of diffusers without a UNet")
    # What stands in it need not be given.
    given = given if given.base is not None else replace(given, model=None, base=path)
    with open_weights(path, part) as file:
        seen = _of_weights(path, file, given)
    return replace(seen, what=f"{seen.what}, in a folder of diffusers")


def _of_weights(path: Path, file: WeightsFile, given: Given) -> Seen:
    if ours := own_files.of_metadata(file):
        return Seen(path, ours.what, goes=ours.goes)
    if found := recognised(file, given):
        return Seen(path, found.what, found.family, found.needs)
    what, kind = described(file.shapes), kind_of(file.shapes)
    if find_home(file.shapes, UNET_HEADS) and what is not None and (kind is None or what != kind.what):
        return Seen(path, what, goes=_why(file))
    if kind is None:
        return Seen(path, "a file of weights of a kind that is not known here")
    return Seen(path, own_files.whose_vae(path, kind.what), goes=kind.goes or kind.instead)


def _why(file: WeightsFile) -> str:
    """Why a UNet is no restorer."""
    from ..unet.inspect import inspect_unet

    try:
        inspect_unet(file)
    except PGPError as e:
        return str(e)
    return "none of the known restorers has such a UNet"
