"""Run a Python script with some packages hidden and the network limited to this machine.

    python isolated.py SCRIPT ARGUMENT...

ComfyUI runs under it in these tests: what then works needs neither the packages nor the network. Hidden
packages look as if they were not installed. (Raising from a finder instead would break ``transformers``,
which ComfyUI needs and which asks for ``accelerate`` by ``importlib.util.find_spec``.) That one is missing for the
pack's own modules alone.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import os
import re
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = ("diffusers", "peft", "accelerate")
#: What ComfyUI imports itself, and nothing of the pack may.
HIDDEN_FROM_THE_PACK = ("transformers",)
#: Modules of the pack, whatever ComfyUI calls it. ComfyUI's own ``nodes`` is below nothing.
_OF_THE_PACK = re.compile(r"(.*\.nodes|(.*\.)?pgp_core)(\..*)?", re.DOTALL)


class _HidingFinder(importlib.machinery.PathFinder):
    """Python's own finder of installed packages, which does not see some."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in HIDDEN:
            return None
        return super().find_spec(fullname, path, target)


def hide_packages() -> None:
    """Hide :data:`HIDDEN` from this process.

    Raises:
        RuntimeError: if one can be imported all the same.
    """
    finder = importlib.machinery.PathFinder
    sys.meta_path[:] = [_HidingFinder if f is finder else f for f in sys.meta_path]
    for name in HIDDEN:
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise RuntimeError(f"{name} could not be hidden")


def hide_from_the_pack() -> None:
    """Hide :data:`HIDDEN_FROM_THE_PACK` from the pack's modules. They may be loaded, so no finder is asked for them."""
    imports = builtins.__import__

    def hiding(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        head = name.partition(".")[0]
        if not level and head in HIDDEN_FROM_THE_PACK and _OF_THE_PACK.fullmatch((globals or {}).get("__name__", "")):
            raise ModuleNotFoundError(f"No module named {head!r}", name=head)
        return imports(name, globals, locals, fromlist or (), level)

    builtins.__import__ = hiding


def limit_network() -> None:
    """Refuse to connect to anything but this machine, and say so on stderr."""

    def refusing(connect: Any) -> Any:
        def limited(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(str(address[0])):
                print(f"isolated.py: REFUSED a connection to {address}", file=sys.stderr, flush=True)
                raise OSError(f"connections to {address} are refused in tests")
            return connect(self, address)

        return limited

    socket.socket.connect = refusing(socket.socket.connect)  # type: ignore[method-assign]
    socket.socket.connect_ex = refusing(socket.socket.connect_ex)  # type: ignore[method-assign]


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


if __name__ == "__main__":
    hide_packages()
    hide_from_the_pack()
    limit_network()
    print(f"isolated.py: hidden are {', '.join(HIDDEN)}", file=sys.stderr, flush=True)
    script = os.path.abspath(sys.argv[1])
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")
