"""Runs the pack's own code in ComfyUI's Python, without a server; started by ``in_process.py``.

    python isolated.py driver.py --comfy PATH --pack PATH

Each line on stdin asks for checks, ``{"modules": [...], "out": FOLDER}``; no modules are those that need no files.
Prints one line ``PGP-CHECK {json}`` a check: its name and either its result or the traceback. Tensors go to
``FOLDER/<check>.safetensors``. The last line of an answer, named ``modules``, says which packages are loaded. Judging
is the tests' business.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

MARK = "PGP-CHECK "

#: Modules in ``checks/``; every function there whose name begins with ``check_`` is one check.
MODULES = (
    "sampling", "patch", "state", "one_step", "dtypes", "refusals", "codec", "conditioning", "recording",
    "estimate", "wiring", "wrapping",
)  # fmt: skip


def _import_as(name: str, folder: Path) -> Any:
    """Import a package from a folder under another name, without putting anything on ``sys.path``."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def prepare(comfy: Path, pack: Path) -> None:
    """Make ``comfy`` and the pack (as ``pgp_pack``, through its entry point) importable, on the CPU."""
    # This file's folder would hide modules of ComfyUI.
    sys.path[0] = str(comfy)
    sys.argv = sys.argv[:1]
    from comfy.cli_args import args

    args.cpu = True
    import torch

    # Latents are tiny here: a second thread would only wait for the first.
    torch.set_num_threads(1)
    entry = _import_as("pgp_pack", pack)

    async def load() -> None:
        extension = await entry.comfy_entrypoint()
        await extension.on_load()
        assert await extension.get_node_list()

    asyncio.run(load())
    _import_as("pgp_checks", Path(__file__).with_name("checks"))


def checks(modules: Sequence[str]) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Every check by name."""
    for module in modules:
        found = importlib.import_module(f"pgp_checks.{module}")
        yield from ((n.removeprefix("check_"), f) for n, f in vars(found).items() if n.startswith("check_"))


def answer(modules: Sequence[str], out: Path) -> None:
    """Run checks and print what they find."""
    import torch

    for name, check in checks(modules):
        started = time.monotonic()
        try:
            # As ComfyUI runs nodes.
            with torch.inference_mode():
                line: dict[str, Any] = {"result": check(out / f"{name}.safetensors")}
        except Exception:
            line = {"error": traceback.format_exc()}
        line.update(name=name, seconds=round(time.monotonic() - started, 2))
        print(MARK + json.dumps(line), flush=True)
    loaded = {m.partition(".")[0] for m in sys.modules}
    print(MARK + json.dumps({"name": "modules", "result": sorted(loaded)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--comfy", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    options = parser.parse_args()
    prepare(options.comfy, options.pack)
    logging.getLogger().setLevel(logging.INFO)
    for line in sys.stdin:
        asked = json.loads(line)
        answer(asked["modules"] or MODULES, Path(asked["out"]))


if __name__ == "__main__":
    main()
