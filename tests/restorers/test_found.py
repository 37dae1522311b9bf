"""A family's files are known by names and shapes, however they are wrapped; what is damaged is said in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from restorer_kit import Variant, maker, maker_path, picture
from safetensors import safe_open
from safetensors.torch import save_file

from pgp_core.errors import PGPError
from pgp_core.files import weights
from pgp_core.restorers.finding import FAMILIES, find
from pgp_core.restorers.restorer import Restorer
from pgp_core.sampling.options import SampleOptions

PREFIXES = ("", "module.", "model.diffusion_model.", "_orig_mod.", "module._orig_mod.")
#: What may go wrong with one tensor.
DAMAGES: dict[str, Callable[[dict[str, torch.Tensor], str], Any]] = {
    "missing": lambda t, k: t.pop(k),
    "surplus": lambda t, k: t.update({k.rsplit(".", 1)[0] + ".surprise": torch.zeros(3)}),
    "misshapen": lambda t, k: t.update({k: torch.cat([t[k], t[k][:1]])}),
    "not finite": lambda t, k: t.update({k: torch.full_like(t[k], float("nan"))}),
}


@pytest.mark.parametrize("family", [f.name for f in FAMILIES])
def test_every_family_has_a_maker(family: str) -> None:
    found = maker(family)
    assert found is not None and found.VARIANTS, (
        f"nothing makes files of family {family}: add tests/restorers/makers/{maker_path(family).name} with VARIANTS "
        "and make(name, folder), as tests/support/restorer_kit.py says; the other makers are examples"
    )


def tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Of a file, and its metadata."""
    if path.suffix == ".bin":
        return torch.load(path, weights_only=True), {}
    with safe_open(str(path), framework="pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def write(path: Path, content: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """As its ending says. What is there may be another file's too, so that goes first."""
    path.unlink(missing_ok=True)
    if path.suffix == ".bin":
        torch.save(content, path)
    else:
        save_file({k: v.contiguous() for k, v in content.items()}, path, metadata or None)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight can be read."""
    opened = weights.open_weights

    @contextmanager
    def names_and_shapes(*args: Any) -> Iterator[weights.WeightsFile]:
        def read(key: str) -> torch.Tensor:
            raise AssertionError(f"{key} was read")

        with opened(*args) as file:
            yield replace(file, read=read)

    monkeypatch.setattr(weights, "open_weights", names_and_shapes)


def test_it_is_known_without_a_weight(case: tuple[str, str], made: Variant, unread: None) -> None:
    found = find(made.given)
    assert found.family.name == case[0]
    assert made.what in found.what
    assert not found.needs


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda p: p or "converted")
def test_it_is_known_again_converted_and_wrapped(
    prefix: str, case: tuple[str, str], made: Variant, restorer: Restorer, options: SampleOptions, tmp_path: Path
) -> None:
    content, metadata = tensors(made.unet)
    if any(k.startswith("model.diffusion_model.") for k in content) and prefix.startswith("model."):
        pytest.skip("a checkpoint has it already")
    given = made.copied(tmp_path / "copy", made.unet, "wrapped.safetensors")
    wrapped = {prefix + k: v.contiguous() for k, v in content.items()}
    save_file(wrapped, tmp_path / "copy" / "wrapped.safetensors", metadata or None)
    found = find(given)
    assert found.family.name == case[0]
    assert made.what in found.what
    if prefix == "module._orig_mod." and case[1] == maker(case[0]).VARIANTS[0]:  # type: ignore[union-attr]
        canvas = picture(40, 48)
        assert torch.equal(found.load(say=str).restore(canvas, options), restorer.restore(canvas, options))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tensor_is_one_line(damage: str, made: Variant, tmp_path: Path) -> None:
    for part, (path, head) in made.parts.items():
        if damage == "surplus" and part in made.leaves_surplus:
            continue
        content, metadata = tensors(path)
        key = [k for k, v in sorted(content.items()) if k.startswith(head) and v.dim() and v.is_floating_point()][-1]
        DAMAGES[damage](content, key)
        given = made.copied(tmp_path / part)
        write(tmp_path / part / path.relative_to(made.unet.parent), content, metadata)
        with pytest.raises(PGPError) as error:
            find(given).load(say=str)
        said = str(error.value)
        assert "\n" not in said and path.name in said, f"{part}: {said}"


@pytest.mark.parametrize("half", [False, True], ids=["gone", "cut"])
def test_a_file_that_is_gone_or_cut_is_one_line(half: bool, made: Variant, tmp_path: Path) -> None:
    for part, (path, _) in made.parts.items():
        given = made.copied(tmp_path / part)
        copy = tmp_path / part / path.relative_to(made.unet.parent)
        copy.unlink()
        if half:
            copy.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(PGPError) as error:
            find(given).load(say=str)
        assert "\n" not in str(error.value) and path.name in str(error.value), part
