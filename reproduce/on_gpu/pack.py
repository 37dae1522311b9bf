"""Makes the folder that goes to a machine with a GPU and no network: ComfyUI as a zip file, and wheels.

    python reproduce/on_gpu/pack.py -o CARRY --comfyui COMFYUI [--python 3.12]

Then, there: ``python reproduce/on_gpu -o OUT --comfyui CARRY/ComfyUI.zip --wheels CARRY/wheels``. What is said at the
end is how large everything is, this checkout's files included.

The machine has PyTorch with torchvision and torchaudio, and aiohttp, einops, filelock, huggingface-hub, numpy, Pillow,
pip, psutil, PyYAML, requests, safetensors, scikit-image, SciPy, sentencepiece, tokenizers, tqdm, transformers and yarl,
as most machines for such work have.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: What the command line, ComfyUI and the tests import and is not on the machine; in wheels for any machine, for
#: comfy-kitchen's own for one holds kernels of 58 MB.
ANYWHERE = (
    *("diffusers", "importlib-metadata", "torchsde", "trampoline", "comfy-kitchen", "SQLAlchemy", "alembic", "Mako"),
    *("pydantic", "pydantic-settings", "python-dotenv", "annotated-types", "typing-inspection", "simpleeval"),
    *("pytest", "pytest-timeout", "hypothesis", "sortedcontainers", "iniconfig", "pluggy"),
)
#: PyAV, most of it all, is how ComfyUI reads pictures.
FOR_ONE_MACHINE = ("comfy-aimdo", "pydantic-core", "blake3", "av")
#: Of ComfyUI's folder: what is no code that runs here.
LEFT_OUT = (
    *("blueprints", "tests", "tests-unit", "custom_nodes", "input", "output", "temp", "models", "user"),
    *("script_examples", "openapi.yaml"),
)

#: A third smaller than a wheel's own; pip reads either.
PACKING = zipfile.ZIP_LZMA

#: pip matches these exactly.
_PLATFORMS = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--python", default="3.12", help="of the machine (3.12)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    packed = args.output / "ComfyUI.zip"
    pack_comfyui(args.comfyui, packed)
    download(args.output / "wheels", args.comfyui, args.python)
    wheels = sorted((args.output / "wheels").glob("*.whl"))
    for wheel in wheels:
        pack_tighter(wheel)
    own = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    checkout = [ROOT / name for name in own.split("\0") if name and (ROOT / name).is_file()]
    total = 0
    for what, files in (("ComfyUI", [packed]), (f"{len(wheels)} wheels", wheels), ("this checkout", checkout)):
        size = sum(f.stat().st_size for f in files)
        total += size
        print(f"{what:<14} {size / 2**20:6.1f} MiB")  # noqa: T201
    print(f"{'together':<14} {total / 2**20:6.1f} MiB")  # noqa: T201


def pack_comfyui(comfyui: Path, packed: Path) -> None:
    """ComfyUI's code as a zip file."""
    if not (comfyui / "main.py").is_file():
        raise SystemExit(f"{comfyui} holds no ComfyUI (no main.py)")
    with zipfile.ZipFile(packed, "w", PACKING) as out:
        for file in sorted(comfyui.rglob("*")):
            inside = file.relative_to(comfyui)
            hidden = any(p.startswith(".") or p in ("__pycache__", "venv") for p in inside.parts)
            if file.is_file() and not hidden and inside.parts[0] not in LEFT_OUT:
                out.write(file, inside)


def download(folder: Path, comfyui: Path, python: str) -> None:
    """The wheels, by pip, for a Linux machine on x86-64; those there already are kept."""
    pinned = versions(comfyui / "requirements.txt")
    common = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    common += ["--disable-pip-version-check", "--dest", str(folder), "--python-version", python]
    one_machine = [f"--platform=manylinux_{p}_x86_64" for p in _PLATFORMS]
    one_machine += ["--platform=manylinux2014_x86_64", "--platform=manylinux2010_x86_64", "--implementation=cp"]
    for names, options in (
        (ANYWHERE, ["--platform=any", "--implementation=py", "--abi=none"]),
        (FOR_ONE_MACHINE, one_machine),
    ):
        wanted = [f"{name}{pinned.get(name.lower(), '')}" for name in names]
        # pydantic wants one release of its core.
        wanted = [w if w != "pydantic-core" else f"pydantic-core=={_core_of(folder)}" for w in wanted]
        subprocess.run([*common, *options, *wanted], stdin=subprocess.DEVNULL, check=True)


def pack_tighter(wheel: Path) -> None:
    """Pack a wheel anew; what is in it stays as it is."""
    temporary = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(temporary, "w") as new:
        if all(entry.compress_type == PACKING for entry in old.infolist()):
            temporary.unlink()
            return
        for entry in old.infolist():
            info = zipfile.ZipInfo(entry.filename, entry.date_time)
            info.external_attr = entry.external_attr
            new.writestr(info, old.read(entry), PACKING)
    temporary.replace(wheel)


def versions(requirements: Path) -> dict[str, str]:
    """What ComfyUI pins, as ``{"name": "==1.2"}``."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)(==[^\s;]+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): version for name, version in found}


def _core_of(folder: Path) -> str:
    (wheel,) = folder.glob("pydantic-*.whl")
    with zipfile.ZipFile(wheel) as inside:
        name = next(n for n in inside.namelist() if n.endswith(".dist-info/METADATA"))
        found = re.search(r"^Requires-Dist: pydantic-core==(\S+)", inside.read(name).decode(), re.MULTILINE)
    assert found is not None, f"{wheel.name} names no release of pydantic-core"
    return found[1]


if __name__ == "__main__":
    main()
