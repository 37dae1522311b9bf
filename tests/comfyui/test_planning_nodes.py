"""From a recording to a plan, and a picture by it, over HTTP, on nano."""

from __future__ import annotations

from typing import Any

import pytest

from pgp_core.planner.dial import dial
from pgp_core.redundancy.report import load_report
from pgp_core.unet.plan import load_plan

from .comfy_server import RunFailed, Server

NANO_BLOCKS = 17


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"PGPDiffSR{kind}", "inputs": inputs}


def _sampler(model: list[Any], steps: int = 3) -> dict[str, Any]:
    sampler = {"seed": 3, "steps": steps, "cfg": 1.5, "sampler_name": "euler", "scheduler": "ddim_uniform"}
    links = {"model": model, "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["empty", 0]}
    return {"class_type": "KSampler", "inputs": {**sampler, "denoise": 1.0, **links}}


def _recorded() -> dict[str, Any]:
    """Two pictures, one by one, into one report."""
    return {
        "nano": _node("LoadNano"),
        "gray": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 2, "color": 8421504}},
        "single": {"class_type": "RebatchImages", "inputs": {"images": ["gray", 0], "batch_size": 1}},
        "empty": {"class_type": "VAEEncode", "inputs": {"pixels": ["single", 0], "vae": ["nano", 2]}},
        "record": _node("RecordRedundancy", model=["nano", 0]),
        "sample": _sampler(["record", 0]),
        "report": _node(
            "RedundancyReport", recording=["record", 1], latent=["sample", 0], filename_prefix="pgp_reports/test"
        ),
    }


def _build(method: str, **inputs: Any) -> dict[str, Any]:
    widgets = {"amount": 0.5, "count": 1, "budget": 0.9, "stage": "decoder"}
    return _node("BuildPlan", report=["report", 0], method=method, **{**widgets, **inputs})


def _show(plan: str) -> dict[str, Any]:
    return _node("ShowPlan", plan=[plan, 0])


def test_from_a_recording_to_a_picture_by_its_plan(server: Server) -> None:
    prompt = _recorded() | {
        "plan": _build("dial"),
        "apply": _node("ApplyPlan", model=["nano", 0], plan=["plan", 0]),
        "again": _sampler(["apply", 0]),
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["again", 0], "vae": ["nano", 2]}},
        "picture": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "planned"}},
        "save": _node("SavePlan", plan=["plan", 0], name="by dial", overwrite=True),
        "show": _show("plan"),
    }
    outputs = server.run(prompt)["outputs"]
    report = load_report(server.folder / "output" / outputs["report"]["text"][0])
    assert (report.measured["pictures"], report.measured["calls"], report.partial) == (2, 6, False)
    plan = load_plan(server.folder / "output" / outputs["save"]["text"][0])
    # The same numbers as without ComfyUI.
    assert plan == dial(report, 0.5)
    assert f"removes {plan.removed} transformer blocks" in outputs["show"]["text"][0]
    assert "parameters:" in outputs["show"]["text"][0]
    assert f"{NANO_BLOCKS} transformer blocks" in outputs["apply"]["text"][0]
    assert outputs["picture"]["images"]

    # A second run measures anew, and does not go on filling the first report.
    again = server.run(prompt)["outputs"]
    second = load_report(server.folder / "output" / again["report"]["text"][0])
    assert second.measured["pictures"] == 2
    assert second.blocks == report.blocks


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ({"plan": _build("coarse", coarse_keep="first"), "show": _show("plan")}, "coarse, for pgp-nano"),
        ({"plan": _build("fine: count", model=["nano", 0]), "show": _show("plan")}, "up_blocks.0.attentions.0: 1 of 4"),
        ({"plan": _build("fine: parameters", stage="all"), "show": _show("plan")}, "parameters:"),
        (
            {
                "plan": _build("dial", amount=0.0),
                "edit": _node(
                    "EditPlan",
                    plan=["plan", 0],
                    encoder=-1,
                    bottleneck=-1,
                    decoder=1,
                    exact="up_blocks.1.attentions.2: none",
                ),
                "show": _show("edit"),
            },
            "up_blocks.1.attentions.2: 0 of 2: none",
        ),
    ],
    ids=["coarse", "count", "budget", "edited"],
)
def test_every_method(build: dict[str, Any], words: str, server: Server) -> None:
    assert words in server.run(_recorded() | build)["outputs"]["show"]["text"][0]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ({"plan": _build("fine: parameters", budget=0.05), "show": _show("plan")}, "PlanError"),
        (
            {"plan": _build("dial"), "save": _node("SavePlan", plan=["plan", 0], name="../x", overwrite=False)},
            "PlanError",
        ),
        (
            {
                "plan": _build("dial"),
                "edit": _node(
                    "EditPlan", plan=["plan", 0], encoder=-1, bottleneck=-1, decoder=-1, exact="up_blocks.9: 1"
                ),
                "show": _show("edit"),
            },
            "up_blocks.9",
        ),
    ],
    ids=["budget", "path", "stack"],
)
def test_what_cannot_be_is_refused(build: dict[str, Any], words: str, server: Server) -> None:
    with pytest.raises(RunFailed, match=words):
        server.run(_recorded() | build)


def test_pictures_of_phase_and_of_redundancy(server: Server) -> None:
    prompt = _recorded() | {
        "phase": _node("PhaseOnly", image=["gray", 0]),
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["phase", 0], "filename_prefix": "phase"}},
    }
    assert len(server.run(prompt)["outputs"]["saved"]["images"]) == 2
    plots = {
        kind: {
            "class_type": "PGPDiffSRPlotRedundancy",
            "inputs": {"report": ["report", 0], "kind": kind, "measure": "phi_cos", "width": 512},
        }
        for kind in ("heat map", "boxes", "over time", "feature maps")
    }
    plots["strip"] = _node("PhaseOnly", image=["gray", 0], strip=True)
    saved = {
        f"saved {kind}": {"class_type": "SaveImage", "inputs": {"images": [kind, 0], "filename_prefix": "plot"}}
        for kind in plots
    }
    try:
        outputs = server.run(_recorded() | plots | saved)["outputs"]
    except RunFailed as e:
        # ComfyUI does not bring matplotlib along; what is missing is said with the command that installs it.
        assert "matplotlib" in str(e) and "pip install" in str(e)
    else:
        assert all(outputs[name]["images"] for name in saved)
