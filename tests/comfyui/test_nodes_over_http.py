"""What ComfyUI tells its page about our nodes: schemas, help, example workflows."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from imported import imported_by_nodes

from .comfy_server import Server, environment
from .isolated import HIDDEN
from .locate import PACK, WORKFLOWS, Comfy
from .packed import FOLDER

IDS = (
    "PGPDiffSRLoadNano",
    "PGPDiffSRApply",
    "PGPDiffSROneStep",
    "PGPDiffSRCanvas",
    "PGPDiffSRColorFix",
    "PGPDiffSRSaveConditioning",
    "PGPDiffSRLoadConditioning",
    "PGPDiffSRLoadModel",
    "PGPDiffSRLoadGuidance",
    "PGPDiffSRPlanPreset",
    "PGPDiffSRLoadPlan",
    "PGPDiffSRApplyPlan",
    "PGPDiffSRSaveModel",
    "PGPDiffSRRecordRedundancy",
    "PGPDiffSRRedundancyReport",
    "PGPDiffSRLoadReport",
    "PGPDiffSRBuildPlan",
    "PGPDiffSREditPlan",
    "PGPDiffSRSavePlan",
    "PGPDiffSRShowPlan",
    "PGPDiffSRPlotRedundancy",
    "PGPDiffSRPhaseOnly",
    "PGPDiffSRTiling",
    "PGPDiffSRDifficulty",
    "PGPDiffSRAdaptive",
    "PGPDiffSRUpscale",
    "PGPDiffSRFaithfulness",
)


def test_the_pack_loaded_under_another_name(server: Server, object_info: dict[str, Any]) -> None:
    ours = {i for i, schema in object_info.items() if schema["python_module"] == f"custom_nodes.{FOLDER}"}
    assert ours == set(IDS)
    log = server.log_tail(10**6)
    assert "IMPORT FAILED" not in log
    assert "REFUSED a connection" not in log


@pytest.mark.parametrize("node", IDS)
def test_every_node_explains_itself(node: str, object_info: dict[str, Any]) -> None:
    schema = object_info[node]
    assert schema["display_name"] != node
    assert schema["description"]
    assert schema["category"] in ("PGP-DiffSR", "PGP-DiffSR/plans")
    assert schema["search_aliases"]
    inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    for name, (_, *options) in inputs.items():
        assert options and options[0].get("tooltip"), name
    assert len(schema["output_tooltips"]) == len(schema["output"])
    assert all(schema["output_tooltips"])


@pytest.mark.parametrize("node", IDS)
def test_every_node_has_a_help_page(node: str, server: Server) -> None:
    text = server.get(f"/extensions/{FOLDER}/docs/{node}.md").decode()
    assert text.lstrip().startswith("#")


def test_the_workflows_are_offered_as_templates(server: Server) -> None:
    offered = server.get_json("/workflow_templates")[FOLDER]
    assert sorted(offered) == sorted(w.stem for w in WORKFLOWS)
    for file in WORKFLOWS:
        body = server.get(f"/api/workflow_templates/{FOLDER}/{file.name}")
        assert json.loads(body) == json.loads(file.read_text(encoding="utf-8"))


def test_the_blueprint_is_offered(server: Server) -> None:
    (file,) = (PACK / "subgraphs").glob("*.json")
    offered = server.get_json("/global_subgraphs")
    (key,) = (k for k, v in offered.items() if v["info"]["node_pack"] == f"custom_nodes.{FOLDER}")
    assert offered[key]["name"] == file.stem
    served = server.get_json(f"/global_subgraphs/{key}")["data"]
    assert json.loads(served) == json.loads(file.read_text(encoding="utf-8"))


def test_what_the_nodes_import_of_pgp_core_needs_torch_only(comfy: Comfy, tmp_path: Path) -> None:
    """In ComfyUI's Python, without ComfyUI on the path and with diffusers hidden."""
    names = imported_by_nodes()
    assert {"guidance.module", "conditioning.entries", "images.canvas"} <= set(names)
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib, sys, types\n"
        "pack = types.ModuleType('pgp_pack')\n"
        f"pack.__path__ = [{str(PACK)!r}]\n"
        "sys.modules['pgp_pack'] = pack\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module('pgp_pack.pgp_core.' + name)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))\n",
        encoding="utf-8",
    )
    command = [str(comfy.python), str(Path(__file__).with_name("isolated.py")), str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert loaded & {*HIDDEN, "comfy", "transformers"} == set()
