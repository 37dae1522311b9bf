"""Every family's files in ComfyUI and on the command line: one picture. See ``checks/restorers.py``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rounding
import sdxl_files
from restorer_kit import Variant, cases, command, maker, photo, read
from safetensors.torch import save_file

from pgp_core.cli import main

from .in_process import Checks, Driver

SECONDS, SCALE = 300, 2.0
#: An odd result: 34 x 46 pixels.
HEIGHT, WIDTH = 17, 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("restorers")


@pytest.fixture(scope="module")
def variants(folder: Path) -> dict[str, tuple[str, Variant]]:
    """Family and files by the variant's name."""
    return {name: (family, maker(family).make(name, folder / "files")) for family, name in cases()}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    return photo(folder / "photo.png", HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def checks(driver: Driver, folder: Path, variants: dict[str, tuple[str, Variant]], source: Path) -> Checks:
    models = {name: v for name, (_, v) in variants.items() if v.in_comfyui is not None}
    told = {name: _case(variant, source, folder) for name, variant in models.items()}
    (folder / "files" / "cases.json").write_text(json.dumps(told))
    return driver.run(folder, SECONDS, "restorers")


def _case(variant: Variant, source: Path, folder: Path) -> dict[str, Any]:
    """What the check needs to know, as data."""
    given, stem, beside = variant.given, variant.name.replace(" ", "-"), dict(variant.in_comfyui or {})
    contexts, vae = (folder / "files" / f"{stem}-{what}.safetensors" for what in ("contexts", "vae"))
    save_file(dict(variant.contexts), contexts)
    if variant.vae is not None:
        weights = sdxl_files.ldm_vae(sdxl_files.vae().state_dict())
        save_file({k: v.contiguous() for k, v in weights.items()}, vae)
    guidance = beside.get("guidance") or given.guidance
    return {
        "unet": str(variant.unet),
        "guidance": None if guidance is None else str(guidance),
        "loras": [str(path) for path in (*given.loras, *beside.get("loras", ()))],
        "vae": None if variant.vae is None else str(vae),
        "vae_parameters": variant.vae,
        "contexts": str(contexts),
        "sizes": list(variant.sizes),
        "photo": str(source),
        "scale": SCALE,
        "one_step": bool(given.one_step),
        "timestep": beside.get("timestep"),
        "run": {**variant.run, **{k: v for k, v in beside.items() if k == "start"}},
    }


@pytest.mark.parametrize("name", [name for _, name in cases()], ids=lambda n: n.replace(" ", "-"))
def test_the_nodes_picture_is_the_command_line_s(
    name: str,
    checks: Checks,
    variants: dict[str, tuple[str, Variant]],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    measured: Callable[[str, float], None],
) -> None:
    family, variant = variants[name]
    if variant.in_comfyui is None:
        pytest.skip(f"ComfyUI has {name} as no MODEL")
    assert checks["restorers"][name] == family
    ours = checks.tensors("restorers")[name]
    start = variant.in_comfyui.get("start")
    line = [*command(variant, source, tmp_path / "out", SCALE), *([f"--start={start}"] if start else [])]
    assert main(line) == 0
    expected = read(Path(json.loads(capsys.readouterr().out)["output"]))
    difference = rounding.difference(ours, expected) * 255
    measured(f"{name}, levels of 255,", difference)
    # Half a level is the file's own rounding; the rest is what two backbones' orders of additions may do.
    assert difference <= 1
