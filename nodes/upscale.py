"""Node: the simple one, from picture to picture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..pgp_core.choices import COLOR_FIXES
from ..pgp_core.errors import PGPError
from ..pgp_core.images import sizes
from ..pgp_core.images.fidelity import check_fidelity
from ..pgp_core.number import MAX_SEED, number
from ..pgp_core.restorers.nano.model import S1_FILE
from ..pgp_core.schedule import TRAIN_STEPS
from . import comfy_backbone
from .expansion import Sources
from .inputs import fidelity_input, natural_input, own_natural, scale_input, strength_input, wrap_input
from .upscale_graph import Parts, Settings, restored

log = logging.getLogger(__name__)


class PGPDiffSRUpscale(io.ComfyNode):
    """Upscales a picture by expanding into the nodes of the shipped workflows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRUpscale",
            display_name="PGP-DiffSR Upscale",
            category="PGP-DiffSR",
            description=(
                "Upscales and restores a picture, with the bundled nano model or with one of yours. It runs the same "
                "nodes as this pack's workflows: Canvas, Apply, a core sampler, VAE and Colour Fix."
            ),
            search_aliases=["pgp", "super resolution", "upscale", "restore", "enlarge", "4x", "video", "faithdiff"],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The low-quality picture, or a batch, such as a video's frames. An alpha channel is kept.",
                ),
                scale_input("Result over input. Halves of a pixel are rounded up."),
                io.Int.Input(
                    "steps",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="1: one step (S1), for which a model of your own needs an S1 LoRA. More: Euler's steps "
                    "with CFG from noise, 20 as trained.",
                ),
                io.Float.Input(
                    "cfg",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Classifier-free guidance. 0 is the model's own: 1 for nano and in one step, 5 for "
                    "full-size models.",
                ),
                strength_input("Not read for a model without model_patch."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the noise. One step has none.",
                ),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=sizes.MAX_SIDE,
                    step=32,
                    tooltip="Side of the tiles that are sampled at a time, in pixels of the result. 0: the whole "
                    "picture where it fits and tiles would not be faster, else tiles as large as fit and pay.",
                ),
                io.Combo.Input(
                    "color_fix",
                    options=list(COLOR_FIXES),
                    default="wavelet",
                    tooltip="How the result gets the colours of the low-quality picture; none leaves them alone.",
                ),
                io.Boolean.Input(
                    "shared_noise",
                    default=False,
                    tooltip="All pictures of the batch get the same noise, so that what stands still in a video does "
                    "not boil.",
                ),
                io.Model.Input("model", optional=True, tooltip="A model of SDXL's kind; without one it is nano."),
                io.ModelPatch.Input(
                    "model_patch",
                    optional=True,
                    tooltip="The guidance made for that model. Without it the picture is changed by half: image to "
                    "image with denoise 0.5.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="That model's VAE."),
                io.Conditioning.Input("positive", optional=True, tooltip="For that model: what the picture shows."),
                io.Conditioning.Input("negative", optional=True, tooltip="For that model; not needed where CFG is 1."),
                wrap_input("The picture is a texture that repeats along these axes, and so does the result."),
                fidelity_input(),
                natural_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The result, of exactly the size asked for.")],
        )

    @classmethod
    def execute(
        cls,
        image: io.Image.Type,
        scale: float,
        steps: int,
        cfg: float,
        strength: float,
        seed: int,
        tile: int,
        color_fix: str,
        shared_noise: bool,
        model: io.Model.Type | None = None,
        model_patch: io.ModelPatch.Type | None = None,
        vae: io.Vae.Type | None = None,
        positive: io.Conditioning.Type | None = None,
        negative: io.Conditioning.Type | None = None,
        wrap: str = "none",
        fidelity: float = 0.0,
        natural: float = 0.0,
    ) -> io.NodeOutput:
        others = {"model_patch": model_patch, "vae": vae, "positive": positive, "negative": negative}
        number(steps, "PGP-DiffSR Upscale: steps must be", 1, TRAIN_STEPS, whole=True)
        number(cfg, "PGP-DiffSR Upscale: cfg must be", 0, 100)
        number(strength, "PGP-DiffSR Upscale: strength must be", 0, 1)
        number(seed, "PGP-DiffSR Upscale: the seed must be", 0, MAX_SEED, whole=True)
        number(tile, "PGP-DiffSR Upscale: tile must be", 0, sizes.MAX_SIDE, whole=True)
        check_fidelity(fidelity, "PGP-DiffSR Upscale: fidelity must be")
        number(natural, "PGP-DiffSR Upscale: natural must be", 0, 1)
        known = _record(model, model_patch)
        dialled = steps == 1 and model is None
        if not dialled and natural != own_natural():
            log.info("PGP-DiffSR Upscale: natural is for nano's one step, and is not read here")
        own = {"natural": natural} if dialled else {}
        recipe = known.recipe(
            steps == 1, cfg=cfg or None, tile=tile or None, **({} if steps == 1 else {"steps": steps}), **own
        )
        if model is None:
            _check_nothing_connected(others)
        else:
            _check_model(model, model_patch, steps)
            _check_connected(others, recipe.cfg)
        graph, sources = GraphBuilder(), Sources(cls.hidden.dynprompt, cls.hidden.unique_id)
        if model is None:
            parts = Parts.bundled(graph, known, recipe)
        else:
            links = {name: sources.of(name, value) for name, value in others.items()}
            parts = Parts(known, sources.of("model", model), **links)
        settings = Settings(scale, recipe, strength, seed, color_fix, shared_noise, wrap, fidelity)
        result = restored(graph, sources.of("image", image), parts, settings)
        return io.NodeOutput(result, expand=graph.finalize())


def _record(model: Any, model_patch: Any) -> comfy_backbone.Record:
    """What is known of the model, with the guidance that it will get; of the bundled one where there is none."""
    if model is None:
        return comfy_backbone.bundled_record()
    return comfy_backbone.record_of(model, getattr(model_patch, "model", None))


def _check_nothing_connected(others: dict[str, Any]) -> None:
    names = [name for name, link in others.items() if link is not None]
    if names:
        raise PGPError(
            f"PGP-DiffSR Upscale: {' and '.join(names)} without model: connect the MODEL too, or none of them for nano"
        )


def _check_connected(others: dict[str, Any], cfg: float) -> None:
    missing = [name for name in ("vae", "positive") if others[name] is None]
    if cfg != 1 and others["negative"] is None:
        missing.append("negative")
    if missing:
        cure = ", or set cfg to 1, which needs no negative" if missing == ["negative"] else ""
        raise PGPError(
            f"PGP-DiffSR Upscale: with a model of your own, connect its {' and '.join(missing)} too"
            f" (steps and CFG {cfg:g} need them){cure}; without model it is nano, which brings its own"
        )


def _check_model(model: io.Model.Type, model_patch: io.ModelPatch.Type | None, steps: int) -> None:
    if model_patch is None and comfy_backbone.is_guided(model):
        raise PGPError(
            "PGP-DiffSR Upscale: this MODEL is guided already (Apply PGP-DiffSR); connect the unguided MODEL, and its "
            "guidance as model_patch"
        )
    if steps == 1 and comfy_backbone.lacks_s1(model):
        raise PGPError(
            f"PGP-DiffSR Upscale: nano takes one step with its S1 LoRA only: load {Path(S1_FILE).name} onto the MODEL, "
            "or connect nothing, or take more steps"
        )
