"""Loading a file's weights into our UNet: it is then the one that diffusers built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pgp_core.errors import CheckpointError, PlanError
from pgp_core.unet.loading import load_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.topology import KeyMap

MakeUNet = Callable[..., torch.nn.Module]
PLAN = load_plan("pgp-nano")


@pytest.mark.parametrize("plan", [None, PLAN], ids=["full", "pruned"])
@pytest.mark.parametrize("ldm", [False, True], ids=["diffusers", "ldm"])
def test_weights_in_either_scheme(
    plan: Any, ldm: bool, make_unet: MakeUNet, shape: Any, call_unet: Callable[..., torch.Tensor]
) -> None:
    source = make_unet(plan)
    weights = source.state_dict()
    if ldm:
        names = KeyMap.of(weights)
        weights = {names.to_ldm(k): v for k, v in weights.items()}
    loaded = load_unet(shape, plan, weights)
    assert not loaded.training
    assert not any(p.is_meta for p in [*loaded.parameters(), *loaded.buffers()])
    assert torch.equal(call_unet(loaded), call_unet(source))


def message_for(shape: Any, plan: Any, weights: dict[str, torch.Tensor]) -> str:
    with pytest.raises(CheckpointError) as error:
        load_unet(shape, plan, weights, "mine.safetensors")
    message = str(error.value)
    assert "mine.safetensors" in message
    assert "\n" not in message
    return message


def test_missing_keys_are_named_and_counted(make_unet: MakeUNet, shape: Any) -> None:
    weights = make_unet().state_dict()
    gone = sorted(k for k in weights if k.startswith("mid_block."))
    message = message_for(shape, None, {k: v for k, v in weights.items() if k not in gone})
    assert all(k in message for k in gone[:3])
    assert gone[3] not in message
    assert f"{len(gone) - 3} more ({len(gone)} in all)" in message


def test_foreign_keys_are_named_and_counted(make_unet: MakeUNet, shape: Any) -> None:
    message = message_for(shape, None, make_unet().state_dict() | {"down_blocks.7.x": torch.ones(1)})
    assert "do not belong there: down_blocks.7.x (1 in all)" in message
    assert "lacks" not in message


def test_a_full_file_for_a_plan_and_a_pruned_file_without(make_unet: MakeUNet, shape: Any) -> None:
    assert "do not belong there" in message_for(shape, PLAN, make_unet().state_dict())
    assert "lacks" in message_for(shape, None, make_unet(PLAN).state_dict())


def test_another_shape_is_named(make_unet: MakeUNet, shape: Any) -> None:
    weights = make_unet().state_dict() | {"conv_in.weight": torch.zeros(32, 9, 3, 3)}
    assert "conv_in.weight has shape (32, 9, 3, 3), expected (32, 4, 3, 3)" in message_for(shape, None, weights)


def test_an_ldm_file_with_a_strange_key(make_unet: MakeUNet, shape: Any) -> None:
    names = KeyMap()
    weights = {names.to_ldm(k): v for k, v in make_unet().state_dict().items()}
    with pytest.raises(CheckpointError, match=r"control_model\.x"):
        load_unet(shape, None, weights | {"control_model.x": torch.ones(1)}, "mine.safetensors")


def test_another_family_s_plan(make_unet: MakeUNet, shape: Any) -> None:
    with pytest.raises(PlanError, match="pgp-sdxl"):
        load_unet(shape, load_plan("pgp-sdxl"), make_unet().state_dict())
