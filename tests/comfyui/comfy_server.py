"""A headless ComfyUI with the pack, and its HTTP interface."""

from __future__ import annotations

import functools
import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .isolated import HIDDEN
from .locate import Comfy
from .packed import copy_pack

#: How long ComfyUI may take to start; half a minute is usual.
START_SECONDS = float(os.environ.get("PGP_COMFY_START_SECONDS", "240"))

#: On the CPU, if nobody asks for something else.
FLAGS = shlex.split(os.environ.get("PGP_COMFY_FLAGS", "--cpu"))

#: So that no first-run dialog covers the page.
PAGE_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Notification.ShowVersionUpdates": False,
}

# Proxies of the environment are for the world outside, which is not asked here.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RunFailed(AssertionError):
    """ComfyUI refused a prompt, or a node failed."""


@dataclass(frozen=True)
class Server:
    """A running ComfyUI."""

    base: str
    folder: Path
    pack: Path
    log: Path

    def log_tail(self, characters: int = 4000) -> str:
        """The end of what ComfyUI said."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]

    def get(self, path: str, timeout: float = 60) -> bytes:
        """Body of a GET."""
        with _OPENER.open(self.base + path, timeout=timeout) as reply:
            body: bytes = reply.read()
        return body

    def get_json(self, path: str) -> Any:
        """Parsed body of a GET."""
        return json.loads(self.get(path))

    def upload(self, file: Path, name: str) -> None:
        """Put a picture into ComfyUI's input folder, as the page's "choose file to upload" does."""
        boundary = uuid.uuid4().hex
        disposition = "Content-Disposition: form-data; name="
        head = f'--{boundary}\r\n{disposition}"overwrite"\r\n\r\ntrue\r\n'
        head += f'--{boundary}\r\n{disposition}"image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        self._post("/upload/image", body, f"multipart/form-data; boundary={boundary}")

    def run(self, prompt: dict[str, Any], seconds: float = 180) -> dict[str, Any]:
        """Queue a prompt and wait; its entry in the history.

        Raises:
            RunFailed: with what ComfyUI said.
        """
        return self.wait(self.queue(prompt), seconds)

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt; its id.

        Raises:
            RunFailed: where ComfyUI refuses it.
        """
        try:
            queued = self._post("/prompt", json.dumps({"prompt": prompt}).encode(), "application/json")
        except urllib.error.HTTPError as e:
            raise RunFailed(f"ComfyUI refused the prompt: {e.read().decode()[:3000]}") from None
        return str(queued["prompt_id"])

    def wait(self, prompt_id: str, seconds: float = 180) -> dict[str, Any]:
        """Wait for a queued prompt; its entry in the history.

        Raises:
            RunFailed: with what ComfyUI said.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry["status"]["completed"]:
                return dict(entry)
            if entry and entry["status"]["status_str"] == "error":
                raise RunFailed(f"{_error_of(entry)}\n{self.log_tail()}")
            time.sleep(0.1)
        raise RunFailed(f"not finished after {seconds:.0f} s\n{self.log_tail()}")

    def refusals(self, prompt: dict[str, Any]) -> set[tuple[str, str, str]]:
        """What ComfyUI has against a prompt that it refuses: types of nodes and errors, and names of inputs."""
        try:
            self._post("/prompt", json.dumps({"prompt": prompt}).encode(), "application/json")
        except urllib.error.HTTPError as e:
            said = json.loads(e.read())
            nodes = said["node_errors"] or {"": {"class_type": "", "errors": [said["error"]]}}
            return {
                (node["class_type"], error["type"], error["extra_info"].get("input_name", ""))
                for node in nodes.values()
                for error in node["errors"]
            }
        return set()

    def picture(self, image: dict[str, str]) -> bytes:
        """A file that a node saved, from its entry in the history."""
        return self.get("/view?" + urllib.parse.urlencode(image))

    def _post(self, path: str, body: bytes, content_type: str) -> Any:
        request = urllib.request.Request(self.base + path, body, {"Content-Type": content_type})
        with _OPENER.open(request, timeout=60) as reply:
            return json.loads(reply.read())


def _error_of(entry: dict[str, Any]) -> str:
    for event, detail in entry["status"]["messages"]:
        if event == "execution_error":
            trace = "".join(detail["traceback"])
            return f"{detail['node_type']}: {detail['exception_type']}: {detail['exception_message']}\n{trace}"
    return json.dumps(entry["status"])[:3000]


@contextmanager
def running(comfy: Comfy, pack: Path, folder: Path, flags: Sequence[str] = ()) -> Iterator[Server]:
    """Start ComfyUI with every folder of its inside ``folder``, and with more flags; it is stopped in any case."""
    copy = copy_pack(pack, _make(folder / "custom_nodes"))
    _make(folder / "models")
    settings = _make(folder / "user" / "default") / "comfy.settings.json"
    settings.write_text(json.dumps(PAGE_SETTINGS), encoding="utf-8")
    port = _free_port()
    server = Server(f"http://127.0.0.1:{port}", folder, copy, folder / "server.log")
    database = (folder / "comfyui.db").as_posix()
    # fmt: off
    command = [
        str(comfy.python), str(Path(__file__).with_name("isolated.py")), str(comfy.path / "main.py"),
        *FLAGS, "--listen", "127.0.0.1", "--port", str(port),
        "--disable-auto-launch", "--disable-api-nodes",
        "--base-directory", str(folder), "--database-url", f"sqlite:///{database}", *flags,
    ]
    # fmt: on
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=comfy.path, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def environment() -> dict[str, str]:
    """For ComfyUI's processes: few threads, no network, nothing of this Python's environment."""
    # A debugger's or a runner's paths would bring modules from this environment into ComfyUI's.
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    # One thread: beside another busy process, two wait for each other by spinning (seen: 4 s a step, not 0.1).
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Compiling what ComfyUI imports takes 10 s, in each of several processes.
        kept.setdefault("PYTHONPYCACHEPREFIX", _bytecode().name)
    return {**kept, **threads, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


@functools.cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    """A folder for this run's bytecode, where none may be written beside the modules; gone when the tests end."""
    return tempfile.TemporaryDirectory(prefix="pgp-bytecode-")


def remove_bytecode() -> None:
    """At the end of the tests: a process of pytest-xdist's may be stopped before it would by itself."""
    if _bytecode.cache_info().currsize:
        _bytecode().cleanup()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"ComfyUI ended with {process.returncode}:\n{server.log_tail()}")
        try:
            server.get("/system_stats", timeout=5)
            break
        except OSError:
            if time.monotonic() > end:
                raise RuntimeError(f"ComfyUI did not start in {START_SECONDS:.0f} s:\n{server.log_tail()}") from None
            time.sleep(0.2)
    assert f"hidden are {', '.join(HIDDEN)}" in server.log_tail(10**6)


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
