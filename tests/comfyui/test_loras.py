"""LoRAs, merges and pruned files in ComfyUI; see ``checks/loras.py`` for what is done there."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import lora_layers
import pytest
import torch
from faithdiff_file import NARROW
from safetensors.torch import save_file

from pgp_core.files.weights import WeightsFile
from pgp_core.unet.core_loading import loads_in_core
from pgp_core.unet.inspect import UNetInfo, inspect_unet
from pgp_core.unet.known import NANO, NANO_SHAPE, SDXL, SDXL_SHAPE
from pgp_core.unet.lora import merge
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan, presets
from pgp_core.unet.topology import KeyMap, split_block

from .in_process import Checks, Driver

SECONDS = 400
NAMES = KeyMap()
#: Linear layers of a transformer block that LoRAs have.
IN_A_BLOCK = (
    *(f"attn{i}.{n}" for i in (1, 2) for n in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)


def flat(name: str) -> str:
    return name.replace(".", "_")


@functools.cache
def _drawn(nano: bool) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_unet(NANO_SHAPE if nano else NARROW).eval()


def _unet(nano: bool = False) -> Any:
    """A whole UNet with drawn weights: nano's, or narrow with SDXL's blocks."""
    return copy.deepcopy(_drawn(nano))


def _save(unet: Any, path: Path) -> None:
    save_file({NAMES.to_ldm(k): v.contiguous() for k, v in unet.state_dict().items()}, path)


def _write_whole_loras(folder: Path, unet: Any) -> None:
    """LoHa on every block and on what is outside, in diffusers' and LDM's names, flat and dotted."""
    folder.mkdir()
    modules = ["conv_in", "mid_block.attentions.0.proj_in"]
    modules += [f"{s}.transformer_blocks.{i}.{n}" for s, d in NANO.depths.items() for i in range(d) for n in IN_A_BLOCK]
    spellings = {
        "diffusers": lambda m: f"lora_unet_{flat(m)}",
        "LDM": lambda m: f"lora_unet_{flat(NAMES.to_ldm(m))}",
        "dotted": lambda m: f"diffusion_model.{NAMES.to_ldm(m)}",
    }
    for name, spell in spellings.items():
        file: dict[str, torch.Tensor] = {}
        for module in modules:
            weight = unet.get_submodule(module).weight
            for half in ("w1", "w2"):
                file[f"{spell(module)}.hada_{half}_a"] = torch.zeros(len(weight), 1)
                file[f"{spell(module)}.hada_{half}_b"] = torch.zeros(1, weight[0].numel())
            file[f"{spell(module)}.alpha"] = torch.tensor(1.0)
        file["lora_unet_nothing_like_it.alpha"] = torch.tensor(1.0)
        save_file(file, folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("loras")
    files = out / "files"
    (files / "kinds").mkdir(parents=True)
    unet = _unet()
    _save(unet, files / "unet.safetensors")
    nano = _unet(nano=True)
    _save(nano, files / "nano.safetensors")
    for name, (module, case) in lora_layers.CASES.items():
        parts = case(unet.get_submodule(module).weight.detach())[0]
        save_file(lora_layers.file_of(module, parts), files / "kinds" / f"{flat(name)}.safetensors")
    _write_whole_loras(files / "whole", nano)
    asked = {k: _keys(p) for k, p in _plans().items()}
    asked |= {f"{k} renumbered": _keys(_plans()[k], True) for k in RENUMBERED}
    (files / "plans.json").write_text(json.dumps(asked))
    return out


@pytest.fixture(scope="module")
def checks(driver: Driver, folder: Path) -> Checks:
    return driver.run(folder, SECONDS, "loras")


def _plans() -> dict[str, PrunePlan]:
    """What a file may lack: nothing, ends, beginnings, middles and all of a stack, in each part of the UNet."""
    up, up_1, mid, down = (
        "up_blocks.0.attentions.1",
        "up_blocks.1.attentions.2",
        "mid_block.attentions.0",
        "down_blocks",
    )
    plans: dict[str, dict[str, tuple[int, ...]]] = {
        "whole": {},
        "decoder, end": {f"up_blocks.0.attentions.{i}": (0, 1, 2, 3) for i in range(3)},
        "decoder, end of two levels": {up: (0,), up_1: (0,)},
        "decoder, gaps": {up: (0, 3, 6, 9)},
        "decoder, beginning": {up: tuple(range(1, 10))},
        "decoder, a stack": {up: ()},
        "decoder, a stack of the other level": {up_1: ()},
        "bottleneck, end": {mid: (0,)},
        "bottleneck, all": {mid: ()},
        "bottleneck, gaps": {mid: (0, 5)},
        "bottleneck, beginning": {mid: (5,)},
        "encoder, end": {f"{down}.2.attentions.0": tuple(range(9))},
        "encoder, beginning": {f"{down}.1.attentions.0": (1,)},
        "encoder, a stack": {f"{down}.2.attentions.1": ()},
        "encoder's end and decoder's beginning": {f"{down}.1.attentions.0": (0,), up: (4,)},
    }
    made = {
        k: PrunePlan("x", "sdxl", {s: StackPlan(SDXL.depths[s], n) for s, n in v.items()}) for k, v in plans.items()
    }
    return {**made, **{k: load_plan(k) for k in presets() if load_plan(k).topology == "sdxl"}}


#: Plans whose files are tried with dense numbers too.
RENUMBERED = ("decoder, gaps", "decoder, beginning", "decoder, a stack", "bottleneck, gaps", "pgp-sdxl")


def _keys(plan: PrunePlan, renumbered: bool = False) -> dict[str, tuple[int, ...]]:
    """LDM names and shapes of SDXL's UNet after a plan."""
    found = {}
    for key, shape in _full_size().items():
        block = split_block(key)
        if block is None or plan.keeps(*block):
            name = NAMES.to_ldm(key)
            if block is not None and renumbered:
                kept = [n for n in range(SDXL.depths[block[0]]) if plan.keeps(block[0], n)]
                old, new = (f".transformer_blocks.{n}." for n in (block[1], kept.index(block[1])))
                name = name.replace(old, new)
            found[name] = shape
    return found


@functools.cache
def _full_size() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in build_unet(SDXL_SHAPE).state_dict().items()}


def _info(plan: PrunePlan) -> UNetInfo:
    shapes = _keys(plan)
    return inspect_unet(WeightsFile("x", shapes, frozenset(shapes), torch.zeros))


# -- LoRAs ---------------------------------------------------------------------------------------------------

#: Core divides a DoRA's rows by the length of the weight as it was; PEFT, LyCORIS and OneTrainer, who train them, by
#: that of the changed weight. Of LoKr with a core for the kernel it gives up, with a line in the log.
OTHERWISE_IN_CORE = {"DoRA by rows", "DoRA by rows, 3x3", "DoRA of LoKr", "LoKr, Tucker"}


@pytest.mark.parametrize("name", sorted(lora_layers.CASES.keys() - OTHERWISE_IN_CORE))
def test_every_kind_is_the_same_by_core_s_loader(name: str, checks: Checks) -> None:
    assert checks["kinds_by_core"][flat(name)] == []
    module, case = lora_layers.CASES[name]
    unet = _unet()
    parts, formula = case(unet.get_submodule(module).weight.detach())
    merge(unet, lora_layers.file_of(module, parts))
    core = checks.tensors("kinds_by_core")[f"{flat(name)}/{NAMES.to_ldm(module + '.weight')}"]
    for found in (core, unet.get_submodule(module).weight.detach()):
        # A rounding for each of the 576 products that are summed.
        tolerance = 600 * torch.finfo(torch.float32).eps * float(formula.abs().max())
        torch.testing.assert_close(found.double(), formula, atol=tolerance, rtol=0)


#: All of the LoRA's layers, and those whose block nano's plan removes.
LAYERS = 2 + 10 * sum(NANO.depths.values())
GONE = 10 * load_plan("pgp-nano").removed
UNKNOWN = "lora key not loaded: lora_unet_nothing_like_it.alpha"


@pytest.mark.parametrize("way", ["loader", "bypass", "hooks"])
@pytest.mark.parametrize("names", ["diffusers", "LDM", "dotted"])
@pytest.mark.parametrize("kind", ["whole", "with a plan", "a pruned file", "Apply Plan"])
def test_a_lora_for_the_whole_model_is_one_line(kind: str, names: str, way: str, checks: Checks) -> None:
    result = checks["lines_of_loras"][f"{kind} / {names} / {way}"]
    if kind in ("whole", "Apply Plan"):
        # These have all weights; what no model has is named all the same.
        assert result["lines"] == [UNKNOWN]
        assert result["patched"] == LAYERS
    else:
        line = (
            f"{GONE} of {LAYERS} patches are for transformer blocks that this pruned model does not have; the others "
            "are used"
        )
        assert sorted(result["lines"]) == [line, UNKNOWN]
        assert result["patched"] == LAYERS - GONE
    assert result["count"] == len(result["lines"])


# -- merges --------------------------------------------------------------------------------------------------


def _merges() -> list[tuple[str, str]]:
    return [("with a plan", n) for n in ("simple", "add", "subtract", "blocks")] + [
        (k, "simple") for k in ("a pruned file", "Apply Plan")
    ]


@pytest.mark.parametrize(("kind", "node"), _merges())
def test_a_merge_is_one_line(kind: str, node: str, checks: Checks) -> None:
    names = [k for k in _unet(nano=True).state_dict() if k.startswith("mid_block.")]
    removed = [n for n in range(4) if not load_plan("pgp-nano").keeps("mid_block.attentions.0", n)]
    gone = sum((split_block(k) or ("", -1))[1] in removed for k in names)
    result = checks["lines_of_merges"]
    into_pruned, into_whole = (result[f"{kind} / {node} / {way}"] for way in ("into pruned", "into whole"))
    if kind == "Apply Plan":
        assert into_pruned == into_whole == {"lines": [], "count": 0, "patched": len(names)}
        return
    assert gone > 0
    assert into_pruned["lines"] == [
        f"{gone} of {len(names)} weights of a merge are for transformer blocks that this pruned model does not have; "
        "the others are used"
    ]
    whole = len(_unet(nano=True).state_dict())
    there = whole - 20 * load_plan("pgp-nano").removed
    assert into_whole["lines"] == [
        f"the pruned model that is merged has {there} of {whole} weights: the blocks that it lacks stay what they are "
        "in the other model"
    ]
    assert into_pruned["count"] == into_whole["count"] == 1
    assert into_pruned["patched"] == into_whole["patched"] == len(names) - gone


# -- what core reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "renumbered"), [*((k, False) for k in _plans()), *((k, True) for k in RENUMBERED)])
def test_what_is_said_of_a_file_is_what_core_does(name: str, renumbered: bool, checks: Checks) -> None:
    core = checks["what_core_reads"][f"{name} renumbered" if renumbered else name]
    said = loads_in_core(_info(_plans()[name]), renumbered)
    assert said.loads == (core == ["SDXL", 0, 0])
    assert ("KeyError" in said.why) == (core == "KeyError")
    assert ("does not know SDXL" in said.why) == (core == "no match")
    assert ("leave out" in said.why) == (isinstance(core, list) and core[1] > 0)
    cure = "the file that it was made from" if renumbered and not said.loads else "Load PGP-DiffSR Model"
    assert cure in str(said) and "\n" not in str(said)


def test_core_s_saving_of_a_pruned_model_says_it_too(checks: Checks) -> None:
    result = checks["saved_by_core"]
    (line,) = result["lines"]
    assert "does not read this file" in line and "Load PGP-DiffSR Model" in line
    assert result["read by ours"]


def test_the_node_says_it_of_the_file_that_it_saved(checks: Checks) -> None:
    shown = checks["shown_by_the_node"]
    assert shown["text"].startswith("diffusion_models/")
    name, said = shown["text"].split("\n")
    assert name.endswith(".safetensors")
    assert said.startswith("ComfyUI's own Load Diffusion Model does not read this file: it knows no pgp-nano")
    assert f"{name}: {said}" in shown["lines"]
