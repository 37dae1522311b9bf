"""How faithful a result is, and the dial, in ComfyUI: what pgp_core says and does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pgp_core.images.departures import departures
from pgp_core.images.faithfulness import describe, faithfulness
from pgp_core.images.fidelity import follow
from pgp_core.images.resampling import enlarge
from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale

from . import pictures
from .comfy_server import RunFailed, Server

WIDTH, HEIGHT = 23, 17


@pytest.fixture(scope="module", autouse=True)
def lq(server: Server, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """``faithful.png`` in ComfyUI's input folder, and what is there as large as a result: ``large.png``."""
    folder = tmp_path_factory.mktemp("lq")
    x = pictures.smooth(5, HEIGHT, WIDTH)
    server.upload(pictures.save(x, folder / "lq.png"), "faithful.png")
    server.upload(pictures.save(_large(), folder / "large.png"), "large.png")
    return x


def _large() -> torch.Tensor:
    return pictures.smooth(6, 4 * HEIGHT, 4 * WIDTH)


def _load(name: str) -> dict[str, Any]:
    return {"class_type": "LoadImage", "inputs": {"image": name}}


def _save(link: list[Any]) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": link, "filename_prefix": "faithful"}}


def _pictures(server: Server, outputs: dict[str, Any], node: str) -> torch.Tensor:
    return torch.cat([pictures.read(server.picture(saved)) for saved in outputs[node]["images"]])


def test_the_node_says_and_shows_what_pgp_core_finds(server: Server, lq: torch.Tensor) -> None:
    """Of a batch of two, against one input; the numbers by core's Preview as Text."""
    prompt: dict[str, Any] = {
        "lq": _load("faithful.png"),
        "large": _load("large.png"),
        "scaled": {
            "class_type": "ImageScale",
            "inputs": {
                "image": ["lq", 0],
                "upscale_method": "nearest-exact",
                "width": 4 * WIDTH,
                "height": 4 * HEIGHT,
                "crop": "disabled",
            },
        },
        "both": {"class_type": "ImageBatch", "inputs": {"image1": ["large", 0], "image2": ["scaled", 0]}},
        "faithful": {"class_type": "PGPDiffSRFaithfulness", "inputs": {"image": ["both", 0], "reference": ["lq", 0]}},
        "map": _save(["faithful", 2]),
        **{
            name: {"class_type": "PreviewAny", "inputs": {"source": ["faithful", i]}}
            for name, i in (("text", 0), ("decibels", 1), ("colours", 3))
        },
    }
    outputs = server.run(prompt)["outputs"]
    nearest = lq.repeat_interleave(4, -1).repeat_interleave(4, -2)
    results = torch.cat([_large(), nearest])
    found = list(faithfulness(results, lq))
    said = describe([(f.db, f.delta_e) for f in found])
    assert outputs["faithful"]["text"] == [said] == outputs["text"]["text"]
    for node, numbers in (("decibels", [f.db for f in found]), ("colours", [f.delta_e for f in found])):
        assert float(outputs[node]["text"][0]) == pytest.approx(sum(numbers) / 2, abs=1e-3)
    expected = torch.stack([departures(r, f) for r, f in zip(results, found, strict=True)])
    # SaveImage rounds down.
    assert (_pictures(server, outputs, "map") - expected).abs().max() <= 1.5 / 255


def test_other_proportions_are_refused(server: Server) -> None:
    prompt = {
        "large": _load("large.png"),
        "crop": {
            "class_type": "ImageCrop",
            "inputs": {"image": ["large", 0], "width": 92, "height": 20, "x": 0, "y": 0},
        },
        "faithful": {
            "class_type": "PGPDiffSRFaithfulness",
            "inputs": {"image": ["large", 0], "reference": ["crop", 0]},
        },
    }
    with pytest.raises(RunFailed, match="PGP-DiffSR Faithfulness: the result is 92 x 68 pixels and the input 92 x 20"):
        server.run(prompt)


def test_the_dial_of_the_simple_node_is_the_command_line_s(server: Server, lq: torch.Tensor) -> None:
    """And off it is what a graph without it gives, bit for bit."""
    upscaled = {"scale": 4.0, "steps": 1, "cfg": 0.0, "strength": 1.0, "seed": 0, "tile": 0}
    upscaled |= {"image": ["lq", 0], "color_fix": "adain", "shared_noise": False}
    prompt: dict[str, Any] = {"lq": _load("faithful.png")}
    for name, dial in (("without", {}), ("off", {"fidelity": 0.0}), ("on", {"fidelity": 3.0})):
        prompt[name] = {"class_type": "PGPDiffSRUpscale", "inputs": upscaled | dial}
        prompt[f"save {name}"] = _save([name, 0])
    outputs = server.run(prompt)["outputs"]
    without, off, on = (_pictures(server, outputs, f"save {name}") for name in ("without", "off", "on"))
    assert torch.equal(without, off)
    restorer = NanoRestorer.load(one_step=True)
    expected = upscale(restorer, lq, Size(scale=4), fix="adain", fidelity=3)
    assert (on - expected).abs().max() <= 2 / 255
    assert (on - off).abs().max() > 5 / 255


def test_the_dial_takes_any_two_pictures(server: Server, lq: torch.Tensor) -> None:
    """By Colour Fix, one of them as small as it was; and after a colour fix it is what two nodes do."""
    fix = {"reference": ["lq", 0], "width": 0, "height": 0}

    def node(image: list[Any], method: str, fidelity: float) -> dict[str, Any]:
        return {
            "class_type": "PGPDiffSRColorFix",
            "inputs": fix | {"image": image, "method": method, "fidelity": fidelity},
        }

    prompt: dict[str, Any] = {
        "lq": _load("faithful.png"),
        "large": _load("large.png"),
        "dial": node(["large", 0], "none", 5.0),
        "save dial": _save(["dial", 0]),
        "at once": node(["large", 0], "adain", 5.0),
        "save at once": _save(["at once", 0]),
        "first": node(["large", 0], "adain", 0.0),
        "then": node(["first", 0], "none", 5.0),
        "save then": _save(["then", 0]),
    }
    outputs = server.run(prompt)["outputs"]
    expected = follow(_large(), enlarge(lq, 4 * WIDTH, 4 * HEIGHT), 5)
    # SaveImage rounds down.
    assert (_pictures(server, outputs, "save dial") - expected).abs().max() <= 1.5 / 255
    assert torch.equal(_pictures(server, outputs, "save at once"), _pictures(server, outputs, "save then"))
    wrong = {name: prompt[name] for name in ("lq", "large", "dial", "save dial")}
    wrong["dial"]["inputs"]["fidelity"] = -1.0
    assert ("PGPDiffSRColorFix", "value_smaller_than_min", "fidelity") in server.refusals(wrong)
