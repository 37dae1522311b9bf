"""Every way of using every family: its files, and the restorer that they make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from restorer_kit import Variant, cases, maker

from pgp_core.restorers.finding import find
from pgp_core.restorers.restorer import Restorer
from pgp_core.sampling.options import SampleOptions


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the makers write, files that several variants share once."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="session", params=cases(), ids=lambda case: case[1].replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Family and variant."""
    return tuple(request.param)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def made(case: tuple[str, str], folder: Path) -> Variant:
    """The variant's files."""
    family, name = case
    variant: Variant = maker(family).make(name, folder)  # type: ignore[union-attr]
    return variant


@pytest.fixture(scope="session")
def restorer(made: Variant) -> Restorer:
    """What they make."""
    return find(made.given).load(say=str)


@pytest.fixture(scope="session")
def options(made: Variant, restorer: Restorer) -> SampleOptions:
    """For a short run."""
    return replace(restorer.recipe.options(), **made.run)


@pytest.fixture(scope="session")
def exact(made: Variant, options: SampleOptions) -> Any:
    """``exact(canvas)``: what the authors' arithmetic makes of it, and the same in float32, kept."""
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def of(canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key = hash(canvas.numpy().tobytes())
        if key not in known:
            wide, narrow = (made.oracle(canvas, options, dtype) for dtype in (torch.float64, torch.float32))
            known[key] = wide, narrow
        return known[key]

    return of
