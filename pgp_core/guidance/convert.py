"""Converting FaithDiff's published file, once, without holding it in memory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..files.atomic import replacing
from ..files.locks import locked
from ..files.safetensors_stream import write_streaming
from ..files.weights import open_weights
from ..progress import Progress, Say
from ..unet.inspect import inspect_unet, markers_of, metadata_of
from ..unet.loading import check_whole
from .faithdiff import find_extras, value_path, value_shape
from .module import KEY_PREFIX, METADATA_KEY

_ADVICE = "wait for it, or choose another folder"


def convert(
    path: Path,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    progress: Progress | None = None,
    say: Say = str,
) -> tuple[Path, Path]:
    """Split a FaithDiff file into a UNet and a guidance file, tensor by tensor.

    The UNet gets LDM keys without prefix; of SDXL's size, core's loader reads it too. Both files appear together, or
    neither does.

    Args:
        folder: where to; in its ``diffusion_models`` and ``model_patches`` where it has both, as ComfyUI's
            ``models`` does.
        dtype: of both files. The authors run float16.
        progress: called with bytes done and in all.
        say: told what is worth knowing of the file, a line each.

    Returns:
        the two paths.

    Raises:
        CheckpointError, GuidanceError: if the file does not fit, or nothing can be written.
    """
    with open_weights(path) as file:
        # First, so that no other file is asked for than this one takes.
        extras = find_extras(file)
        info = inspect_unet(file)
        check_whole(info, file)
        for note in info.notes:
            say(f"{file.name}: {note}")
        unet_path, guidance_path = _places(path, folder)
        unet = {info.ldm(k): k for k in info.keys}
        guidance = {KEY_PREFIX + k: s for k, s in extras.sources.items()}

        def size(source: str) -> int:
            return math.prod(value_shape(source, file.shapes[source])) * dtype.itemsize

        total = sum(map(size, (*unet.values(), *guidance.values())))
        done = 0

        def read(source: str) -> torch.Tensor:
            nonlocal done
            done += size(source)
            if progress is not None:
                progress(done, total)
            return value_path(source, file.read(source))

        def write(target: Path, keys: dict[str, str], metadata: dict[str, str], *markers: str) -> None:
            shapes = {k: value_shape(s, file.shapes[s]) for k, s in keys.items()} | dict.fromkeys(markers, (0,))
            empty = torch.zeros(0)
            write_streaming(
                target, shapes, dtype, lambda k: empty if k in markers else read(keys[k]), metadata, file.name
            )

        try:
            with (
                locked(unet_path, _ADVICE),
                locked(guidance_path, _ADVICE),
                replacing(unet_path) as unet_file,
                replacing(guidance_path) as guidance_file,
            ):
                write(unet_file, unet, metadata_of(info, f"{path.stem} UNet"), *markers_of(info))
                write(guidance_file, guidance, {METADATA_KEY: json.dumps(extras.spec.to_json())})
        except OSError as e:
            raise CheckpointError(f"{folder} cannot be written to: {e}") from None
    return unet_path, guidance_path


def _places(path: Path, folder: Path) -> tuple[Path, Path]:
    """Where the UNet and the guidance go."""
    own = folder / "diffusion_models", folder / "model_patches"
    unet, guidance = own if all(p.is_dir() for p in own) else (folder, folder)
    stem = path.stem.lower()
    places = unet / f"{stem}-unet.safetensors", guidance / f"{stem}-guidance.safetensors"
    if path.resolve() in [p.resolve() for p in places]:
        raise CheckpointError(f"{path} would be overwritten by its own conversion: choose another folder")
    return places
