"""Folders of pictures that a benchmark makes: a run that was ended goes on where it stopped, and nothing is lost.

Beside the pictures of a row lies what they were made with. A run with the same settings takes up those that are whole;
one with other settings stops, unless it is told to make them again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...batch.marks import origin_of, said_by
from ...batch.names import key
from ...errors import PGPError, PictureError
from ...files.atomic import replacing
from ...files.json_format import loads

RECORD = "made.json"
FORMAT, VERSION = "pgp-diffsr/benchmark-row", 1


@dataclass
class Kept:
    """A row's folder.

    Attributes:
        folder: of the pictures.
        settings: how they are made; JSON data.
        seconds: picture to the seconds that it took; None where it is not said.
        about: what was found out when the model was loaded; JSON data.
    """

    folder: Path
    settings: Mapping[str, Any]
    seconds: dict[str, float | None] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any], overwrite: bool) -> Kept:
        """Make the folder, or take up what is there.

        Raises:
            PGPError: if it holds what was made otherwise, or by others, and ``overwrite`` is not set.
            PictureError: if it cannot be made or written to.
        """
        kept = cls(folder, json.loads(json.dumps(settings)))
        said = _read(folder / RECORD)
        if said is not None and not overwrite:
            if differ := _differences(said["settings"], kept.settings):
                raise PGPError(
                    f"{folder} holds pictures that were made otherwise ({differ}): --overwrite makes them again; or "
                    "give another -o, or the row another --name"
                )
            kept.seconds, kept.about = dict(said["pictures"]), dict(said["about"])
        elif not overwrite and folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise PGPError(
                f"{folder} holds files that do not say how they were made: --overwrite replaces pictures there"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept.write()
        except OSError as e:
            raise PictureError(f"nothing can be written to the folder {folder}: {e.strerror or e}") from None
        return kept

    def path(self, name: str) -> Path:
        """Where a picture lies, or will."""
        return self.folder / f"{name}.png"

    def has(self, name: str, lq: Path) -> bool:
        """Whether a picture is there already, made of this very LQ picture."""
        said = said_by(self.path(name)) if name in self.seconds else None
        return said is not None and said.content == origin_of(lq).content

    def add(self, name: str, seconds: float | None) -> None:
        """Note that a picture is there."""
        self.seconds[name] = seconds
        self.write()

    def write(self) -> None:
        """Write the record."""
        said = {"settings": self.settings, "about": self.about, "pictures": self.seconds}
        data = {"format": FORMAT, "version": VERSION, **said}
        with replacing(self.folder / RECORD) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none that can be read."""
    try:
        data = loads(path.read_text(encoding="utf-8"))
        good = data["format"] == FORMAT and data["version"] == VERSION
        return data if good and all(isinstance(data[k], dict) for k in ("settings", "about", "pictures")) else None
    except Exception:
        return None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], most: int = 3) -> str:
    """What differs, in words; nothing where all is the same."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    told = [f"{name}: {_short(old.get(name))}, now {_short(new.get(name))}" for name in names[:most]]
    return "; ".join(told) + ("; …" if len(names) > most else "")


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 40 else f"{text[:37]}…"


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Folders' names for rows: what no file system minds, and no two alike."""
    found: dict[str, str] = {}
    for name in names:
        body = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:80] or "row"
        folder, number = body, 2
        while key(folder) in map(key, found.values()):
            folder, number = f"{body}-{number}", number + 1
        found[name] = folder
    return found
