"""Text as editors save it: byte order marks and line ends, wherever a person's file is read."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
import reports

from pgp_core.errors import CheckpointError
from pgp_core.files.diffusers_folder import config
from pgp_core.files.json_format import read_json
from pgp_core.files.text import decode_text
from pgp_core.redundancy.report import load_report
from pgp_core.training.config import READY, load_config
from pgp_core.training.samples.scanning import _caption
from pgp_core.unet.known import SDXL
from pgp_core.unet.plan import PRESET_DIR, load_plan

#: As Notepad, PowerShell's ``>`` and Excel write them.
ENCODINGS = {
    "utf-8": lambda s: s.encode(),
    "utf-8 with a mark": lambda s: codecs.BOM_UTF8 + s.encode(),
    "utf-16 LE": lambda s: codecs.BOM_UTF16_LE + s.encode("utf-16-le"),
    "utf-16 BE": lambda s: codecs.BOM_UTF16_BE + s.encode("utf-16-be"),
    "utf-32 LE": lambda s: codecs.BOM_UTF32_LE + s.encode("utf-32-le"),
    "utf-8 with a mark and CRLF": lambda s: codecs.BOM_UTF8 + s.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_file_of_a_person_is_read_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(ENCODINGS[encoding](text))
        return path

    text = "A café\nby the sea — 雪 🏔.\n"
    assert decode_text(ENCODINGS[encoding](text)) == text
    assert _caption(write("caption.txt", text)) == "A café by the sea — 雪 🏔."
    preset = PRESET_DIR / "pgp-sdxl.json"
    assert load_plan(write("plan.json", preset.read_text())) == load_plan("pgp-sdxl")
    report = reports.drawn(SDXL, 1)
    assert load_report(write("report.json", report.dumps())).to_json() == report.to_json()
    assert config(write("config.json", '{"scaling_factor": 0.5}').parent) == {"scaling_factor": 0.5}
    ready = READY / "nano-full.toml"
    assert load_config(write("run.toml", ready.read_text())).model == load_config(ready).model


def test_what_is_no_text_is_that_file_s_error(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for data in (b"\xff\x00", codecs.BOM_UTF16_LE + b"x", b"[" * 100_000, b"{"):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"config\.json") as error:
            read_json(path, "settings", CheckpointError)
        assert "\n" not in str(error.value)
    assert json.loads(decode_text(b"{}")) == {}
