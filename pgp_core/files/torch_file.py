"""Opening files of ``torch.save`` that strangers made: looked through before anything of them is unpickled.

PyTorch's reader believes what an archive says. Mapped, it takes a compressed record's bytes for weights; not mapped, it
unpacks whatever there is, and takes a tensor's length from the pickle. So the archive is read first, by Python's own
reader of zip files, and only what ``torch.save`` writes is let through.
"""

from __future__ import annotations

import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import CheckpointError
from .boundary import first_line

#: Before it ``weights_only`` could be made to run code or write where it should not.
SAFE_TORCH = (2, 10)
#: SDXL's UNet has 1,680 tensors, and its pickle 0.3 MB.
_RECORDS, _PICKLE, _OPCODES = 50_000, 64 << 20, 20_000_000
#: What stands one after the other in a file of the older format: magic number, version, system, data, storages' names.
_OLDER_PICKLES = 5
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
#: What tensors may come to beyond the file's own size: some are views of one storage, some expanded.
_FACTOR, _SPARE = 4, 64 << 20

#: What a pickle of weights names. PyTorch's own list has more, of which some only take memory.
_NAMES = re.compile(
    r"collections (OrderedDict|Counter|defaultdict)|_codecs encode|(builtins|__builtin__) (set|frozenset|list|dict|"
    r"tuple|int|float|bool|complex|str|slice)|torch\._utils _rebuild_\w+|torch\._tensor _rebuild_\w+|"
    r"torch\.nn\.parameter (Parameter|Buffer|UninitializedParameter)|torch\.storage \w+Storage|"
    r"torch(\.cuda)? \w+Storage|torch\.serialization _get_layout|"
    r"torch (Size|device|Tensor|float\w*|bfloat16|half|double|u?int\d*|long|short|bool|complex\w*|q\w+|strided|"
    r"\w+Tensor|sparse_\w+|per_\w+|\w+_format)"
)


def load_torch_file(path: Path, advice: str = "get it again", device: str = "cpu") -> tuple[Any, bool]:
    """What ``torch.load(weights_only=True)`` gives of a file, and whether it is mapped: else, which is the older
    format, the whole is in memory.

    Args:
        advice: what to do about a file that is damaged.
        device: for ``map_location``.

    Raises:
        CheckpointError: if PyTorch is too old to open it safely, or the file is damaged, packed, or holds more than
            tensors and plain data.
    """
    check_torch(path.name)
    # PyTorch, zipfile and pickletools raise errors of every kind where a file is damaged.
    try:
        records = _check_archive(path)
        mapped = records is not None
        with warnings.catch_warnings():
            # About kinds of tensors that are refused later.
            warnings.simplefilter("ignore")
            data = torch.load(path, map_location=device, weights_only=True, mmap=mapped or None)
        if records is not None and device != "meta":
            _check_storages(data, records)
        return data, mapped
    except CheckpointError:
        raise
    except Exception as e:
        if type(e).__name__ == "UnpicklingError" and "global" in str(e).lower():
            raise _more(path) from None
        # Its UnpicklingError begins with advice to load the file unsafely.
        why = "its pickle is wrong" if type(e).__name__ == "UnpicklingError" else first_line(e)
        raise CheckpointError(f"{path.name} is damaged or no PyTorch file ({why}): {advice}") from e


def check_torch(name: str) -> None:
    """Refuse to unpickle with a PyTorch whose safe way is known not to be safe.

    Raises:
        CheckpointError: saying what to do.
    """
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if found is None or (int(found[1]), int(found[2])) < SAFE_TORCH:
        wanted = ".".join(map(str, SAFE_TORCH))
        raise CheckpointError(
            f"{name} is not opened: PyTorch {torch.__version__} cannot unpickle strangers' files safely; update "
            f"PyTorch to {wanted} or newer, or take the same weights as .safetensors"
        )


def _more(path: Path) -> CheckpointError:
    return CheckpointError(f"{path.name} holds more than weights, so it is not opened: unpickling could run anything")


def _check_archive(path: Path) -> dict[str, int] | None:
    """Sizes of an archive's records, all of which lie in the file as they are; None for the older format."""
    size = path.stat().st_size
    with path.open("rb") as file:
        # As PyTorch tells them apart.
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            for _ in range(_OLDER_PICKLES):
                _check_pickle(path, file)
            return None
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            end = archive.start_dir
        if len(entries) > _RECORDS:
            raise ValueError(f"it has {len(entries)} records")
        names = [e.filename for e in entries]
        if len(set(names)) < len(names):
            raise ValueError("a record is in it twice")
        taken, records, pickles = 0, {}, []
        for entry in sorted(entries, key=lambda e: e.header_offset):
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise CheckpointError(
                    f"{path.name} is packed: its weights cannot be read where they lie; unpack the archive and pack it "
                    "again without compression, or take it as .safetensors"
                )
            if entry.flag_bits & 0x2041:
                raise ValueError("it is encrypted")
            start = _data_start(file, entry)
            if entry.header_offset < taken or start + entry.file_size > min(end, size):
                raise ValueError("its records overlap or end outside of it")
            taken = start + entry.file_size
            records[entry.filename] = entry.file_size
            if entry.filename.endswith("data.pkl"):
                pickles.append((start, entry.file_size))
        if len(pickles) != 1:
            raise ValueError("it has no data.pkl" if not pickles else "it has more than one data.pkl")
        for start, length in pickles:
            if length > _PICKLE:
                raise ValueError(f"its pickle has {length} bytes")
            file.seek(start)
            _check_pickle(path, file.read(length))
    return records


def _data_start(file: Any, entry: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin; its own header must say what the directory says."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    magic, _, flags, method, _, _, _, _, _, name, extra = _LOCAL_HEADER.unpack(header)
    if magic != b"PK\x03\x04" or method != entry.compress_type or (flags ^ entry.flag_bits) & 1:
        raise ValueError("its directory is false")
    if file.read(name) != entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437"):
        raise ValueError("its directory has other names than its records")
    return int(entry.header_offset) + _LOCAL_HEADER.size + name + extra


def _check_pickle(path: Path, data: bytes | BinaryIO) -> None:
    """Refuse a pickle that names what no weights need, before PyTorch's reader runs it; a file is read to its end."""
    count, texts = 0, ["", ""]
    for opcode, argument, _ in pickletools.genops(data):
        count += 1
        if count > _OPCODES:
            raise ValueError("its pickle has no end")
        if opcode.name in ("GLOBAL", "INST"):
            named = str(argument)
        elif opcode.name == "STACK_GLOBAL":
            named = " ".join(texts)
        else:
            if isinstance(argument, str) and opcode.name.endswith(("UNICODE", "UNICODE8", "STRING")):
                texts = [texts[1], argument]
            continue
        if not _NAMES.fullmatch(named):
            raise _more(path)


def _check_storages(data: Any, records: dict[str, int]) -> None:
    """What was made must be what lies in the file: no storage of another length, no more tensors than the file has."""
    sizes = set(records.values())
    total = 0
    for tensor in _tensors(data):
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            continue
        length = tensor.untyped_storage().nbytes()
        if length and length not in sizes:
            raise ValueError(f"a storage of {length} bytes is none of its records")
        total += tensor.numel() * tensor.element_size()
    if total > _FACTOR * sum(records.values()) + _SPARE:
        raise ValueError(f"its tensors come to {total} bytes, far more than the file has")


def _tensors(data: Any) -> Iterable[torch.Tensor]:
    """All tensors in dicts, lists and tuples, however they are nested; each container once."""
    todo, seen = [data], set[int]()
    while todo:
        item = todo.pop()
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)
