"""What PGP-DiffSR Upscale expands into: the graph of the shipped workflows, built anew for its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import GraphBuilder

from ..pgp_core.restorers.nano.natural import s1_loras
from ..pgp_core.restorers.recipe import Recipe
from .comfy_backbone import Record

#: FaithDiff's start with guidance: what its noise schedule leaves of the picture at timestep 999.
LR_START = 0.068265


@dataclass(frozen=True)
class Parts:
    """A model's parts, as links of a graph.

    Attributes:
        record: what is known of the model.
        model_patch: None for a model that nothing guides.
        negative: None where CFG is 1, which never runs it.
    """

    record: Record
    model: Any
    vae: Any
    positive: Any
    negative: Any = None
    model_patch: Any = None

    @classmethod
    def bundled(cls, graph: GraphBuilder, record: Record, recipe: Recipe) -> Parts:
        """The bundled model, for one step with its S1 LoRA, or with both, as core's patches.

        Raises:
            CheckpointError: if a second LoRA is wanted and there is none.
        """
        load = graph.node("PGPDiffSRLoadNano")
        model, model_patch, vae, positive, negative = (load.out(i) for i in range(5))
        for name, strength in s1_loras(recipe.natural) if recipe.one_step else ():
            model = graph.node("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength).out(0)
        return cls(record, model, vae, positive, negative, model_patch)


@dataclass(frozen=True)
class Settings:
    """What the node's widgets say, and what of it is the model's own already decided.

    Attributes:
        recipe: how the model is used.
    """

    scale: float
    recipe: Recipe
    strength: float
    seed: int
    color_fix: str
    shared_noise: bool
    wrap: str = "none"
    fidelity: float = 0.0


def restored(graph: GraphBuilder, image: Any, parts: Parts, settings: Settings) -> Any:
    """Put the nodes into a graph.

    Args:
        image: link to the low-quality picture.

    Returns:
        link to the result.
    """
    kind, wrap = parts.record.family.canvas, settings.wrap
    canvas = graph.node(
        "PGPDiffSRCanvas", image=image, by="scale", scale=settings.scale, pixels=2048, model=kind, wrap=wrap
    )
    lq, width, height = (canvas.out(i) for i in range(3))
    model = parts.model
    if parts.model_patch is not None:
        model = graph.node(
            "PGPDiffSRApply",
            model=model,
            model_patch=parts.model_patch,
            image=lq,
            strength=settings.strength,
            start_percent=0.0,
            end_percent=1.0,
        ).out(0)
    model = _in_tiles(graph, model, settings.recipe.tile, settings.recipe.overlap, wrap)
    latent = graph.node("VAEEncode", pixels=lq, vae=parts.vae).out(0)
    if settings.recipe.one_step:
        sampled = _once(graph, model, latent, parts, settings)
    else:
        sampled = _by_steps(graph, model, latent, parts, settings)
    picture = graph.node("VAEDecode", samples=sampled, vae=parts.vae).out(0)
    return graph.node(
        "PGPDiffSRColorFix",
        image=picture,
        reference=lq,
        method=settings.color_fix,
        width=width,
        height=height,
        wrap=wrap,
        fidelity=settings.fidelity,
    ).out(0)


def _in_tiles(graph: GraphBuilder, model: Any, tile: int, overlap: int, wrap: str) -> Any:
    # Small tiles share less, as nobody can say here how much.
    overlap = min(overlap, tile // 2) if tile else overlap
    # One picture at a time: a batch may be a video, and a card that holds one picture is to hold any number of them.
    return graph.node(
        "PGPDiffSRTiling", model=model, tile=tile, overlap=overlap, blend="cosine", phase="tile", frames=1, wrap=wrap
    ).out(0)


def _once(graph: GraphBuilder, model: Any, latent: Any, parts: Parts, settings: Settings) -> Any:
    """One UNet call (S1); there is no noise in it."""
    recipe = settings.recipe
    if recipe.cfg == 1:
        guider = graph.node("BasicGuider", model=model, conditioning=parts.positive)
    else:
        guider = graph.node("CFGGuider", model=model, positive=parts.positive, negative=parts.negative, cfg=recipe.cfg)
    step = graph.node("PGPDiffSROneStep", model=model, timestep=recipe.timestep, rule=recipe.rule)
    return graph.node(
        "SamplerCustomAdvanced",
        noise=graph.node("DisableNoise").out(0),
        guider=guider.out(0),
        sampler=step.out(0),
        sigmas=step.out(1),
        latent_image=latent,
    ).out(0)


def _by_steps(graph: GraphBuilder, model: Any, latent: Any, parts: Parts, settings: Settings) -> Any:
    """Euler's steps, from the start that the model is meant for."""
    start, recipe, residual = latent, settings.recipe, parts.record.family.residual
    if residual or recipe.start == "noise":
        # Of a residual the LQ picture's own latent is zero, and the LQ latent is added afterwards.
        start = graph.node("LatentMultiply", samples=latent, multiplier=0.0).out(0)
    elif recipe.start == "lr":
        start = graph.node("LatentMultiply", samples=latent, multiplier=LR_START).out(0)
    if settings.shared_noise:
        start = graph.node("LatentBatchSeedBehavior", samples=start, seed_behavior="fixed").out(0)
    sampled = graph.node(
        "KSampler",
        model=model,
        seed=settings.seed,
        steps=recipe.steps,
        cfg=recipe.cfg,
        sampler_name="euler",
        scheduler="ddim_uniform",
        positive=parts.positive,
        # Core does not run it at CFG 1, but wants one.
        negative=parts.positive if parts.negative is None else parts.negative,
        latent_image=start,
        denoise=recipe.noise,
    ).out(0)
    return graph.node("LatentAdd", samples1=sampled, samples2=latent).out(0) if residual else sampled
