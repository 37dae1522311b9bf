"""Every shipped workflow: it fits the nodes, and it runs as shipped."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from . import pictures
from .comfy_server import RunFailed, Server
from .locate import PACK, WORKFLOWS
from .ui_to_prompt import BYPASSED, MUTED, WorkflowError, to_prompt, widget_names
from .workflow_size import canvas_size

WIDTH, HEIGHT = 37, 29
#: The picture's longer side where a workflow samples in 20 steps; one step has the size that is shipped.
SMALL = 48


def test_every_node_has_the_widgets_and_inputs_of_its_schema(
    workflow: dict[str, Any], object_info: dict[str, Any]
) -> None:
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        schema = object_info[node["type"]]
        values = node.get("widgets_values", [])
        names = [n for n in widget_names(schema, values) if n != "compare_view"]
        assert len(values) == len(names), (node["type"], names)
        inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
        assert {i["name"] for i in node.get("inputs", [])} <= inputs.keys()
        assert [o["type"] for o in node.get("outputs", [])] == schema["output"], node["type"]


def test_links_join_what_both_ends_say(workflow: dict[str, Any]) -> None:
    nodes = {n["id"]: n for n in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    ends = set()
    for number, origin, out, target, into, kind in workflow["links"]:
        output, entry = nodes[origin]["outputs"][out], nodes[target]["inputs"][into]
        assert number in output["links"]
        assert entry["link"] == number
        assert output["type"] == entry["type"] == kind
        ends.add(number)
    for node in workflow["nodes"]:
        assert {i["link"] for i in node.get("inputs", []) if i["link"] is not None} <= ends
        assert {n for o in node.get("outputs", []) for n in o["links"] or []} <= ends
    assert workflow["last_node_id"] >= max(nodes)
    assert workflow["last_link_id"] >= max(ends)


def test_it_runs_as_shipped_and_the_result_has_the_canvas_s_size(
    nano_workflow: dict[str, Any], object_info: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    """As shipped but for the picture's size, where that would take a minute."""
    file = pictures.save(pictures.smooth(3, HEIGHT, WIDTH), tmp_path / "picture.png")
    prompt = to_prompt(nano_workflow, object_info)
    if any(n["class_type"] == "KSampler" for n in prompt.values()):
        (resize,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "ImageScaleToMaxDimension")
        assert resize["largest_size"] == 128
        resize["largest_size"] = SMALL
    (load,) = (n for n in prompt.values() if n["class_type"] == "LoadImage")
    server.upload(file, load["inputs"]["image"])
    (saver,) = (i for i, n in prompt.items() if n["class_type"] == "SaveImage")
    outputs = server.run(prompt)["outputs"]
    (saved,) = outputs[saver]["images"]
    width, height = canvas_size(prompt, saver, (WIDTH, HEIGHT))
    assert pictures.read(server.picture(saved)).shape == (1, 3, height, width)
    (compare,) = (i for i, n in prompt.items() if n["class_type"] == "ImageCompare")
    assert len(outputs[compare]["a_images"]) == len(outputs[compare]["b_images"]) == 1


def test_an_input_that_does_not_fit_is_said_on_its_node(
    nano_workflow: dict[str, Any], object_info: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    prompt = to_prompt(nano_workflow, object_info)
    (load,) = (n for n in prompt.values() if n["class_type"] == "LoadImage")
    server.upload(pictures.save(pictures.smooth(3, 8, 8), tmp_path / "p.png"), load["inputs"]["image"])
    (apply,) = (n for n in prompt.values() if n["class_type"] == "PGPDiffSRApply")
    apply["inputs"].update(start_percent=0.6, end_percent=0.4)
    with pytest.raises(RunFailed, match=r"^PGPDiffSRApply: .*GuidanceError: .*end \(0\.4\) before it starts \(0\.6\)"):
        server.run(prompt)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_every_workflow_has_a_thumbnail(path: Path) -> None:
    """ComfyUI's template browser shows the picture of the same name."""
    with Image.open(path.with_suffix(".jpg")) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (512, 512))


def test_the_workflows_are_in_one_folder() -> None:
    """ComfyUI knows five names for it; with two of them it serves the first one's files only."""
    names = {"example_workflows", "example", "examples", "workflow", "workflows"}
    assert {p.name for p in PACK.iterdir() if p.name in names and p.is_dir()} == {"workflows"}


# -- the conversion itself, on a graph of our own --------------------------------------------------------------


def _chain(mode: int) -> dict[str, Any]:
    """LoadImage, a node in the given mode, SaveImage."""

    def node(i: int, kind: str, mode: int, into: Any, out: Any, values: list[Any]) -> dict[str, Any]:
        inputs = [] if into is None else [{"name": into[0], "type": "IMAGE", "link": into[1]}]
        outputs = [] if out is None else [{"name": "IMAGE", "type": "IMAGE", "links": [out]}]
        return {"id": i, "type": kind, "mode": mode, "inputs": inputs, "outputs": outputs, "widgets_values": values}

    return {
        "nodes": [
            node(1, "LoadImage", 0, None, 1, ["a.png", "image"]),
            node(2, "ImageScaleBy", mode, ("image", 1), 2, ["lanczos", 4.0]),
            node(3, "SaveImage", 0, ("images", 2), None, ["out"]),
            {"id": 4, "type": "Note", "mode": 0, "widgets_values": ["text"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    }


LOAD = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
SAVE = {"class_type": "SaveImage", "inputs": {"filename_prefix": "out"}}


def _save_from(source: str) -> dict[str, Any]:
    return {**SAVE, "inputs": {**SAVE["inputs"], "images": [source, 0]}}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            0,
            {
                "1": LOAD,
                "2": {
                    "class_type": "ImageScaleBy",
                    "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "scale_by": 4.0},
                },
                "3": _save_from("2"),
            },
        ),
        (BYPASSED, {"1": LOAD, "3": _save_from("1")}),
        (MUTED, {"1": LOAD, "3": SAVE}),
    ],
)
def test_conversion_of_modes(mode: int, expected: dict[str, Any], object_info: dict[str, Any]) -> None:
    assert to_prompt(_chain(mode), object_info) == expected


def test_conversion_passes_over_the_value_after_a_seed(object_info: dict[str, Any]) -> None:
    values = [7, "randomize", 20, 5.0, "euler", "ddim_uniform", 0.5]
    graph = {"nodes": [{"id": 1, "type": "KSampler", "mode": 0, "widgets_values": values}], "links": []}
    assert to_prompt(graph, object_info)["1"]["inputs"] == {
        "seed": 7,
        "steps": 20,
        "cfg": 5.0,
        "sampler_name": "euler",
        "scheduler": "ddim_uniform",
        "denoise": 0.5,
    }


def test_conversion_refuses_unknown_nodes_and_other_widgets(object_info: dict[str, Any]) -> None:
    graph = _chain(0)
    graph["nodes"][1]["type"] = "NoSuchNode"
    with pytest.raises(WorkflowError, match="NoSuchNode"):
        to_prompt(graph, object_info)
    graph = copy.deepcopy(_chain(0))
    graph["nodes"][1]["widgets_values"] = ["lanczos", 4.0, 1]
    with pytest.raises(WorkflowError, match="node 2"):
        to_prompt(graph, object_info)
