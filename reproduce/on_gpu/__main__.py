"""Everything that needs a GPU, as one command.

    python reproduce/on_gpu -o OUT [--comfyui DIR|ZIP] [--wheels DIR] [--parts 1,2,3,4]
    python reproduce/on_gpu -o OUT --device cpu --tiny

The first is for a machine with a GPU and asks for nothing; the second tries all of it where there is none, with models
and pictures so small that its figures mean nothing. OUT gets a JSON file for each part, written anew with every row,
``summary.json`` and ``log.txt``. The exit status is 0 if every part was done and no row failed, else 1; 2 if nothing
could begin.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# This folder itself holds modules of the package, and is no place to import from.
sys.path[:] = [str(HERE.parent), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

from on_gpu import checkout, environment  # noqa: E402
from on_gpu.parts import PARTS, run_part  # noqa: E402
from on_gpu.supervise import Part, supervise  # noqa: E402

#: What all parts may take together: calls of ten minutes are what one gets.
SECONDS = 570.0


def main() -> int:
    """The command."""
    args = _parsed()
    if args.in_this_process is not None:
        checkout.provide()
        return run_part(args.in_this_process, args)
    for how in (signal.SIGTERM, signal.SIGHUP):
        # Whoever ends this ends the parts, and the files of several GB go.
        signal.signal(how, lambda number, _: sys.exit(128 + number))
    args.output.mkdir(parents=True, exist_ok=True)
    args.output = args.output.resolve()
    (args.output / "log.txt").unlink(missing_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{args.output.name}-", dir=_beside(args.output)))
    try:
        return _all(args, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="on_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and pictures, to try the script itself")
    parser.add_argument("--parts", default=",".join(str(p.number) for p in PARTS), help="numbers (all)")
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI, its folder or a zip file; parts of it are left out "
                        "without one")  # fmt: skip
    parser.add_argument("--wheels", type=Path, help="a folder with wheels of what this Python lacks")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all parts together ({SECONDS:g})")
    parser.add_argument("--limit", action="append", default=[], metavar="PART=S", help="seconds of one part")
    parser.add_argument("--in-this-process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--temporary", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    by_number = {p.number: p for p in PARTS}
    try:
        args.parts = [by_number[int(n)] for n in args.parts.split(",")]
        limits = {int(n): float(s) for n, s in (limit.split("=") for limit in args.limit)}
    except (KeyError, ValueError):
        parser.error(f"--parts takes some of {', '.join(map(str, by_number))}; --limit a part and seconds, as 2=60")
    args.parts = [Part(p.number, p.name, limits.get(p.number, p.seconds)) for p in args.parts]
    for path in filter(None, (args.comfyui, args.wheels)):
        if not path.exists():
            parser.error(f"there is no {path}")
    return args


def _beside(out: Path) -> Path | None:
    """Where files of several GB go for a while: beside the results, else where the system says."""
    return out.parent if os.access(out.parent, os.W_OK) else None


def _all(args: argparse.Namespace, temporary: Path) -> int:
    python = environment.make(temporary / "python", args.wheels)
    comfyui = environment.comfyui(args.comfyui, temporary / "ComfyUI") if args.comfyui else None
    machine = _machine(python, args.device)
    print(json.dumps(machine, indent=1), flush=True)  # noqa: T201

    def command(part: Part) -> list[str]:
        own = [str(python), str(HERE), "--in-this-process", str(part.number), "-o", str(args.output)]
        own += ["--device", args.device, "--temporary", str(temporary), *(["--tiny"] if args.tiny else [])]
        return [*own, *(["--comfyui", str(comfyui)] if comfyui else [])]

    about = {"device": args.device, "tiny": args.tiny, "machine": machine, "comfyui": comfyui is not None}
    # What is compiled here is no other run's, and goes away.
    cache = {name: str(temporary / "compiled") for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}
    if args.tiny:
        # Beside another busy process, two threads wait for each other by spinning.
        offline |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    summary = supervise(args.parts, command, args.output, args.seconds, {**env, **cache, **offline}, about)
    return 0 if summary["ok"] else 1


_MACHINE = """
import json, os, platform, sys, torch
cuda = torch.cuda.is_available()
found = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system(),
         "processor": platform.machine(), "cores": os.cpu_count(), "cuda": torch.version.cuda if cuda else None}
if cuda:
    of = torch.cuda.get_device_properties(0)
    found |= {"gpu": of.name, "memory_bytes": of.total_memory, "capability": [of.major, of.minor],
              "cudnn": torch.backends.cudnn.version()}
print(json.dumps(found))
"""


def _machine(python: Path, device: str) -> dict[str, Any]:
    """What this is, by PyTorch; ends the run if it has not what was asked for."""
    command = [str(python), "-c", _MACHINE]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if done.returncode:
        print(f"PyTorch cannot be imported:\n{done.stderr.strip()[-2000:]}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)
    machine: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if device == "cuda" and machine["cuda"] is None:
        print("PyTorch sees no GPU here: give --device cpu --tiny to try the script", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)
    return machine


if __name__ == "__main__":
    sys.exit(main())
