"""The shipped workflows in ComfyUI's page: they open, convert and run there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from . import pictures
from .comfy_server import Server
from .freeze import FROZEN, prompt_of, read
from .locate import PACK
from .page import NoBrowser, Page, chromium, opened
from .test_frozen import by_release
from .ui_to_prompt import to_prompt
from .workflow_size import canvas_size

pytestmark = pytest.mark.browser

SECONDS = 150

#: What the page says, within half a second, about types that it does not know.
MISSING = "Missing node"

#: The picture's longer side on the page, so that a run takes seconds; the workflows themselves have more.
SMALL = 32


@pytest.fixture(scope="module")
def page(server: Server, report: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    try:
        executable = chromium()
    except NoBrowser as e:
        report["browser"] = f"tests/comfyui/test_browser.py did NOT run: {e}"
        pytest.skip(str(e))
    file = pictures.save(pictures.smooth(11, 29, 37), tmp_path_factory.mktemp("browser") / "picture.png")
    # Before the page reads which pictures there are.
    server.upload(file, "example.png")
    with opened(server.base, tmp_path_factory.mktemp("profile"), executable, SECONDS) as ready:
        yield ready


@pytest.fixture
def opened_workflow(page: Page, workflow: dict[str, Any]) -> dict[str, Any]:
    page.load(workflow)
    return workflow


def _node(workflow: dict[str, Any], kind: str) -> int:
    (found,) = (n["id"] for n in workflow["nodes"] if n["type"] == kind)
    return int(found)


@pytest.mark.usefixtures("opened_workflow")
def test_no_node_is_missing(page: Page) -> None:
    assert page.unregistered() == []
    page.pause()
    assert MISSING not in page.text()


def test_a_missing_node_would_be_seen(page: Page, nano_workflow: dict[str, Any]) -> None:
    """The two assertions above can fail; where models are missing too, the page gives only the number of errors."""
    nano_workflow["nodes"][0]["type"] = "NoSuchNodeAnywhere"
    page.load(nano_workflow)
    assert page.unregistered() == ["NoSuchNodeAnywhere"]
    page.wait_for_text(MISSING)


def test_the_page_converts_it_as_we_do(
    opened_workflow: dict[str, Any], page: Page, object_info: dict[str, Any]
) -> None:
    assert _converted(page) == to_prompt(opened_workflow, object_info)


def test_the_page_converts_what_is_shipped_muted_as_we_do(
    full_size_workflow: dict[str, Any], page: Page, object_info: dict[str, Any]
) -> None:
    for node in full_size_workflow["nodes"]:
        node["mode"] = 0
    page.load(full_size_workflow)
    assert _converted(page) == to_prompt(full_size_workflow, object_info)


@pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes_2"])
@pytest.mark.parametrize("path", FROZEN, ids=by_release)
def test_a_release_s_workflow_opens_and_says_what_it_said(page: Page, path: Path, nodes_2: bool) -> None:
    """Nodes may get more widgets; none is gone, and each has the value that the file was saved with."""
    page.use_nodes_2(nodes_2)
    page.load(read(path))
    assert page.unregistered() == []
    page.pause()
    assert MISSING not in page.text()
    then, now = read(prompt_of(path)), _converted(page)
    assert {i: n["class_type"] for i, n in then.items()} == {i: n["class_type"] for i, n in now.items()}
    for i, node in then.items():
        kept = {name: now[i]["inputs"].get(name) for name in node["inputs"]}
        assert kept == node["inputs"], node["class_type"]
    assert page.errors == []


def _converted(page: Page) -> dict[str, Any]:
    return {i: {"class_type": n["class_type"], "inputs": _sent(n["inputs"])} for i, n in page.prompt().items()}


def _sent(inputs: dict[str, Any]) -> dict[str, Any]:
    """Without the player that the page puts on core's video nodes, which is no input of theirs."""
    return {k: v for k, v in inputs.items() if k != "video-preview"}


def _around_the_blueprint() -> dict[str, Any]:
    """The blueprint between LoadImage and SaveImage, as if dragged in from the node library."""
    (file,) = (PACK / "subgraphs").glob("*.json")
    blueprint = json.loads(file.read_text(encoding="utf-8"))
    (node,) = blueprint["nodes"]
    node["inputs"][0]["link"], node["outputs"][0]["links"] = 1, [2]
    picture = {"name": "IMAGE", "type": "IMAGE", "links": [1]}
    common = {"pos": [-400, 0], "size": [300, 300], "flags": {}, "order": 0, "mode": 0, "properties": {}}
    load = {**common, "id": 101, "type": "LoadImage", "inputs": [], "outputs": [picture]}
    load["widgets_values"] = ["example.png", "image"]
    save = {**common, "id": 102, "type": "SaveImage", "outputs": [], "widgets_values": ["blueprint"], "pos": [400, 0]}
    save["inputs"] = [{"name": "images", "type": "IMAGE", "link": 2}]
    links = [[1, 101, 0, node["id"], 0, "IMAGE"], [2, node["id"], 0, 102, 0, "IMAGE"]]
    return {**blueprint, "nodes": [load, node, save], "links": links, "last_node_id": 102, "last_link_id": 2}


@pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes_2"])
def test_the_blueprint_opens_and_does_what_the_simple_node_does(page: Page, server: Server, nodes_2: bool) -> None:
    page.use_nodes_2(nodes_2)
    page.load(_around_the_blueprint())
    page.pause()
    assert MISSING not in page.text()
    prompt = page.prompt()
    (canvas,) = (n["inputs"] for n in prompt.values() if n["class_type"] == "PGPDiffSRCanvas")
    assert canvas["scale"] == 4
    assert page.unregistered() == []
    simple = {"scale": 4.0, "steps": 1, "cfg": 0.0, "strength": 1.0, "seed": 0, "tile": 0, "color_fix": "wavelet"}
    simple |= {"shared_noise": False, "image": ["load", 0]}
    other = {
        "load": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "upscale": {"class_type": "PGPDiffSRUpscale", "inputs": simple},
        "102": {"class_type": "SaveImage", "inputs": {"images": ["upscale", 0], "filename_prefix": "simple"}},
    }
    results = [server.run(p)["outputs"]["102"]["images"] for p in (prompt, other)]
    ours, theirs = (pictures.read(server.picture(saved)) for (saved,) in results)
    assert ours.shape == (1, 3, 29 * 4, 37 * 4)
    assert torch.equal(ours, theirs)
    assert page.errors == []


@pytest.mark.parametrize("nodes_2", [False, True], ids=["canvas", "nodes_2"])
def test_it_runs_on_the_page_and_the_result_appears(
    nano_workflow: dict[str, Any], page: Page, nodes_2: bool, request: pytest.FixtureRequest
) -> None:
    """In both of the page's ways to draw nodes; core's slider shows its pictures in Nodes 2.0 only."""
    page.use_nodes_2(nodes_2)
    page.load(nano_workflow)
    # Another size in either, or everything would come from ComfyUI's cache.
    page.set_widget(_node(nano_workflow, "ImageScaleToMaxDimension"), "largest_size", SMALL + 4 * nodes_2)
    prompt = page.prompt()
    saver, compare = _node(nano_workflow, "SaveImage"), _node(nano_workflow, "ImageCompare")
    page.fit_view()
    event, detail = page.run(SECONDS)
    assert event == "execution_success", detail
    size = canvas_size(prompt, str(saver), (37, 29))
    page.wait_for_pictures(saver, [size])
    if nodes_2:
        page.wait_for_pictures(compare, [size, size])
    assert page.errors == []
    folder = os.environ.get("PGP_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(Path(folder) / f"{request.node.callspec.id}.png")
