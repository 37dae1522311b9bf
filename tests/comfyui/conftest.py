"""One ComfyUI for all tests of this folder; where there is none, they skip and say so at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trained_lora

from . import diffusers_side
from .comfy_server import Server, remove_bytecode, running
from .full_size_files import write_files
from .in_process import Checks, Driver, driving
from .locate import FULL_SIZE_WORKFLOWS, NANO_WORKFLOWS, PACK, UPSCALE_WORKFLOWS, WORKFLOWS, Comfy, NotFound, locate

#: Far more than the checks take.
CHECKS_SECONDS = 500


def pytest_sessionfinish() -> None:
    """Whatever this folder's tests have left elsewhere."""
    remove_bytecode()


@pytest.fixture(scope="session")
def measured(report: dict[str, str]) -> Callable[[str, float], None]:
    """``measured(what, figure)`` shows a figure at the end of the run, also of a test that passes."""

    def add(what: str, figure: float) -> None:
        entry = f"{what} {figure:.2g}"
        before = report.get("figures")
        report["figures"] = f"{before}; {entry}" if before else f"tests/comfyui, largest differences: {entry}"

    return add


@pytest.fixture(scope="session")
def comfy(report: dict[str, str]) -> Comfy:
    """ComfyUI on this machine."""
    try:
        found = locate()
    except NotFound as e:
        report["comfyui"] = f"tests/comfyui did NOT run: {e}"
        pytest.skip(str(e))
    report["comfyui"] = f"tests/comfyui ran with ComfyUI {found.version} at {found.path}"
    return found


@pytest.fixture(scope="session")
def server(comfy: Comfy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ComfyUI, running, with the pack under another name; diffusers and peft are hidden from it."""
    with running(comfy, PACK, tmp_path_factory.mktemp("comfyui") / "base") as started:
        yield started


@pytest.fixture(scope="session")
def driver(comfy: Comfy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Runs checks in ComfyUI's Python; one process for all files of tests but those of memory."""
    with driving(comfy, PACK, tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.fixture(scope="session")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    """What the checks of nano found; see ``driver.MODULES``."""
    folder = tmp_path_factory.mktemp("in_process")
    trained_lora.write(trained_lora.adapted(diffusers_side.unet()), folder / "files" / "lora.safetensors")
    return driver.run(folder, CHECKS_SECONDS)


@pytest.fixture(scope="session")
def object_info(server: Server) -> dict[str, Any]:
    """Schemas of all nodes."""
    return dict(server.get_json("/object_info"))


@pytest.fixture(scope="session")
def full_size_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What ``full_size_files.write_files`` writes, for ``placed``."""
    folder = tmp_path_factory.mktemp("full_size")
    write_files(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows the end of ComfyUI's log."""
    outcome = yield
    result = outcome.get_result()  # type: ignore[attr-defined]
    started = getattr(item, "funcargs", {}).get("server")
    if result.failed and isinstance(started, Server):
        result.sections.append(("ComfyUI's log", started.log_tail()))


def _each(paths: Sequence[Path]) -> Any:
    """A fixture that gives each workflow as the file has it."""

    @pytest.fixture(params=paths, ids=lambda p: p.stem)
    def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
        return dict(json.loads(request.param.read_text(encoding="utf-8")))

    return workflow


#: All that are shipped.
workflow = _each(WORKFLOWS)
#: Those that run as shipped.
nano_workflow = _each(NANO_WORKFLOWS)
#: Those that do what ``pgp-diffsr upscale`` does.
upscale_workflow = _each(UPSCALE_WORKFLOWS)
#: Those that need files which the pack does not bring.
full_size_workflow = _each(FULL_SIZE_WORKFLOWS)
