"""Tests of the suite that take a device, and those of a running ComfyUI with its workflows, as rows."""

from __future__ import annotations

import os
import shlex
from typing import Any

from ..checkout import ROOT
from ..results import Results
from ..setting import Setting

TESTS = ROOT / "tests"
#: One workflow of each kind: as shipped; with the user's files; video; tiles; any SDXL. Files and names of tests.
WORKFLOWS = {
    "comfyui/test_workflows.py": "test_it_runs_as_shipped_and_the_result_has_the_canvas_s_size",
    "comfyui/test_full_size_workflows.py": "test_it_restores_a_picture_of_odd_size",
    "comfyui/test_other_workflows.py": "test_a_video_becomes_a_larger_one_of_as_many_frames "
    "or test_tiles_make_what_one_call_makes or test_any_sdxl_restores_without_guidance",
}
#: Files whose tests run once for each device.
DEVICES = ("test_phase.py", "test_lq_tiles_at_work.py")
#: Seconds that one test may take.
SECONDS = 90


class _Rows:
    """pytest's plugin: a row for each test of ComfyUI, and one for all others of a file."""

    def __init__(self, results: Results):
        self.results, self.files = results, {}  # type: ignore[var-annotated]

    def pytest_runtest_logreport(self, report: Any) -> None:
        file, _, name = report.nodeid.partition("::")
        if report.when != "call" and report.outcome == "passed":
            return
        found: dict[str, Any] = {"state": {"passed": "ok"}.get(report.outcome, report.outcome)}
        if report.outcome == "skipped":
            found["reason"] = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
        if report.outcome == "failed":
            found["error"] = str(report.longrepr)[-2000:]
        if "comfyui/" in file:
            self.results.put(f"test of ComfyUI: {name}", found, report.duration)
            return
        of_file = self.files.setdefault(file, {"seconds": 0.0, "passed": 0, "skipped": 0, "failed": {}})
        of_file["seconds"] += report.duration
        if found["state"] == "failed":
            of_file["failed"][name] = found["error"]
        else:
            of_file["passed" if found["state"] == "ok" else "skipped"] += 1

    def pytest_sessionfinish(self) -> None:
        for file, found in self.files.items():
            seconds = found.pop("seconds")
            state: dict[str, Any] = {"state": "ok"}
            if found["failed"]:
                state = {"state": "failed", "error": f"{len(found['failed'])} tests: {', '.join(found['failed'])}"}
            self.results.put(f"tests with a device: {file}", {**state, **found}, seconds)


def run(results: Results, setting: Setting) -> None:
    """First the tests with a device, then those of ComfyUI."""
    try:
        import pytest
    except ImportError:
        results.put("tests", {"state": "skipped", "reason": "there is no pytest: give its wheels"}, 0)
        return
    common = ["-c", str(TESTS / "pytest.ini"), "-p", "no:cacheprovider", "--tb=short", "-o", f"timeout={SECONDS}"]
    common += [f"--basetemp={setting.temporary / 'pytest'}"]
    if setting.tiny:
        _ask(pytest, [*common, "-k", "cpu and dtype", str(TESTS / DEVICES[0])], results)
    else:
        _ask(pytest, [*common, "-k", setting.device, *(str(TESTS / f) for f in DEVICES)], results)
    if setting.comfyui is None:
        results.put("tests of ComfyUI", {"state": "skipped", "reason": "no --comfyui"}, 0)
        return
    front = setting.temporary / "front"
    front.mkdir(exist_ok=True)
    (front / "index.html").write_text("<html></html>", encoding="utf-8")
    # The page is a package of 30 MB, and nobody looks at it here.
    flags = ["--front-end-root", str(front), *([] if setting.cuda else ["--cpu"])]
    os.environ.update(COMFYUI_PATH=str(setting.comfyui), PGP_COMFY_FLAGS=shlex.join(flags))
    files = list(WORKFLOWS)[: 1 if setting.tiny else None]
    wanted = " or ".join(WORKFLOWS[f] for f in files)
    if setting.tiny:
        wanted += " and nano-s1"
    _ask(pytest, [*common, "-k", wanted, *(str(TESTS / f) for f in files)], results)


def _ask(pytest: Any, arguments: list[str], results: Results) -> None:
    rows = _Rows(results)
    status = int(pytest.main(arguments, plugins=[rows]))
    # 1: tests failed, which their rows say.
    if status not in (0, 1):
        results.put("tests", {"state": "failed", "error": f"pytest ended with {status}: see log.txt"}, 0)
