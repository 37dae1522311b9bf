"""What all tests share. Nothing here puts the pack's root on ``sys.path``: tests use the installed package."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before anything imports huggingface_hub: tests never use the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# The tensors here are tiny: more threads only wait for each other, in the processes that tests start as well, and the
# longer the more runs beside them. Results hold with any number.
os.environ["OMP_NUM_THREADS"] = os.environ.get("PGP_TEST_THREADS", "1")
# Hypothesis caches into the working directory otherwise.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "pgp-hypothesis"))

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = ROOT / "tests" / "comfyui"

_REPORT = pytest.StashKey[dict[str, str]]()

# `python -m pytest` puts the working directory in front, where nodes/ would hide ComfyUI's nodes.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The same examples in every run.
settings.register_profile("pgp", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("pgp")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What pytest-xdist keeps in one process: a file, and all that shares one ComfyUI.

    Not by its marks: with pytest 9.2 its release 3.8 writes them where pytest no longer looks.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "comfyui" if COMFYUI.name in file.split("/")[:-1] else file

    return Together(config, log)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> dict[str, str]:
    """Lines for the end of the run, by subject."""
    return pytestconfig.stash.setdefault(_REPORT, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """pytest-xdist: a worker sends its lines to the process that shows them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["report"] = session.config.stash.get(_REPORT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: a worker has ended, perhaps without sending anything."""
    sent = getattr(node, "workeroutput", {}).get("report", {})
    node.config.stash.setdefault(_REPORT, {}).update(sent)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(_REPORT, {}).values():
        terminalreporter.write_line(line, yellow="NOT" in line, bold="NOT" in line)


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each kind of device; those that this machine lacks are skipped."""
    absent = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if absent.get(request.param):
        pytest.skip(f"no {request.param} device")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def shape() -> Any:
    """SDXL's topology with nano's depths, as narrow as GroupNorm's 32 groups allow."""
    from pgp_core.unet.known import NANO_SHAPE

    return replace(NANO_SHAPE, latent_channels=4, channels=(32, 32, 32), context_dim=16, pooled_dim=16)


@pytest.fixture
def make_unet(shape: Any) -> Callable[..., torch.nn.Module]:
    """``make_unet(plan=None, seed=0)``: a narrow diffusers UNet, its weights drawn from the seed."""
    from pgp_core.unet.on_diffusers import build_unet

    def make(plan: Any = None, seed: int = 0) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_unet(shape, plan).eval()

    return make


@pytest.fixture
def call_unet(shape: Any) -> Callable[..., torch.Tensor]:
    """``call_unet(unet, batch=1, size=(16, 16), seed=0)``: its output for drawn inputs, without gradient."""

    @torch.no_grad()
    def call(unet: Any, batch: int = 1, size: tuple[int, int] = (16, 16), seed: int = 0) -> torch.Tensor:
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, shape.latent_channels, *size, generator=g)
        context = torch.randn(batch, 5, shape.context_dim, generator=g)
        pooled = torch.randn(batch, shape.pooled_dim, generator=g)
        ids = torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]]).repeat(batch, 1)
        return unet(
            x,
            torch.full((batch,), 501.0),
            encoder_hidden_states=context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
            return_dict=False,
        )[0]

    return call
