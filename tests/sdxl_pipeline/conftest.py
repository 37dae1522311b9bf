"""Given and a pipeline, made once for all of these tests; none of them may open a connection."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sdxl_scene import Everything

from pgp_core.restorers.given import Given
from pgp_core.restorers.sdxl.restorer import SDXLRestorer
from pgp_core.unet.topology import KeyMap


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Everything:
    return Everything(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def pipeline(files: Everything) -> SDXLRestorer:
    return SDXLRestorer.load(Given(model=files.faithdiff, base=files.sdxl, prompt="a red house"), say=str)


@pytest.fixture(scope="session")
def s1(files: Everything) -> dict[str, Path]:
    """One LoRA in three spellings: for S1 in diffusers' names, then as trainers and as PEFT write them."""
    g, names = torch.Generator().manual_seed(4), KeyMap()
    modules = ["conv_in", "mid_block.attentions.0.transformer_blocks.7.attn1.to_q", "up_blocks.1.resnets.0.conv1"]
    out: dict[str, dict[str, torch.Tensor]] = {"s1": {}, "ldm": {}, "peft": {}}
    for module in modules:
        shape = files.unet[f"{module}.weight"].shape
        down = torch.randn(4, *shape[1:], generator=g) * 0.1
        up = torch.randn(shape[0], 4, *(1 for _ in shape[2:]), generator=g) * 0.1
        for kind, stem in (("s1", module), ("ldm", names.to_ldm(module))):
            stem = "lora_unet_" + stem.replace(".", "_")
            out[kind] |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            out[kind][f"{stem}.alpha"] = torch.tensor(4.0)
        out["peft"] |= {f"unet.{module}.lora_A.weight": down, f"unet.{module}.lora_B.weight": up}
    paths = {k: files.root / f"lora-{k}.safetensors" for k in out}
    for kind, weights in out.items():
        metadata = {"pgp.s1": json.dumps({"timestep": 17})} if kind == "s1" else None
        save_file({k: v.contiguous() for k, v in weights.items()}, paths[kind], metadata)
    return paths


@pytest.fixture(scope="session")
def semantic(files: Everything) -> Path:
    """A second LoRA, on other layers and one of the first's."""
    g, out = torch.Generator().manual_seed(8), {}
    for module in ("conv_in", "up_blocks.0.attentions.0.transformer_blocks.3.ff.net.2", "conv_out"):
        shape = files.unet[f"{module}.weight"].shape
        stem = "lora_unet_" + module.replace(".", "_")
        out[f"{stem}.lora_down.weight"] = torch.randn(3, *shape[1:], generator=g) * 0.1
        out[f"{stem}.lora_up.weight"] = torch.randn(shape[0], 3, *(1 for _ in shape[2:]), generator=g) * 0.1
    path = files.root / "lora-semantic.safetensors"
    save_file(out, path, {"pgp.s1": json.dumps({"timestep": 17})})
    return path
