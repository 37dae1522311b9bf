"""Node: one-step sampling (S1) for core's SamplerCustomAdvanced."""

from __future__ import annotations

from comfy_api.latest import io

from ..pgp_core.sampling.rules import RESIDUAL, X0
from . import comfy_backbone


class PGPDiffSROneStep(io.ComfyNode):
    """A SAMPLER and SIGMAS that restore in one UNet call."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSROneStep",
            display_name="PGP-DiffSR One Step",
            category="PGP-DiffSR",
            description=(
                "One-step restoration (S1): result = LQ latent - UNet(LQ latent, timestep). Connect both outputs to "
                "Sampler Custom Advanced, with Disable Noise and the VAE-encoded LQ picture as its latent. The model "
                "needs an S1 LoRA."
            ),
            search_aliases=["pgp", "s1", "one step", "single step", "super resolution", "pisa", "dial"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled; its noise schedule is read."),
                io.Int.Input(
                    "timestep",
                    default=-1,
                    min=-1,
                    max=999,
                    tooltip="The timestep that the S1 LoRA was distilled at: 1 for PGP-DiffSR-S1, 999 for nano. -1 is "
                    "that of the model's kind; set it for a LoRA that was distilled at another.",
                ),
                io.Model.Input(
                    "pixel_model",
                    optional=True,
                    tooltip=(
                        "Only for a model with two LoRAs, one for pixels and one for semantics: the same MODEL with "
                        "the pixel LoRA alone. With strengths that differ the UNet is then called twice."
                    ),
                ),
                io.Float.Input(
                    "pixel",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="With pixel_model: how much of the degradation is taken away; 1 as trained.",
                ),
                io.Float.Input(
                    "semantic",
                    optional=True,
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="With pixel_model: how much detail the semantic LoRA adds; 0 none, 1 as trained.",
                ),
                io.Combo.Input(
                    "rule",
                    optional=True,
                    options=["auto", RESIDUAL, X0],
                    default="auto",
                    tooltip="How the result comes of what the UNet says. residual: taken away from the LQ latent (S1, "
                    "PiSA-SR). x0: the UNet says the noise in it (OSEDiff, S3Diff). auto: the model's own.",
                ),
            ],
            outputs=[
                io.Sampler.Output(display_name="sampler", tooltip="For Sampler Custom Advanced."),
                io.Sigmas.Output(display_name="sigmas", tooltip="For Sampler Custom Advanced: one step."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        timestep: int,
        pixel_model: io.Model.Type | None = None,
        pixel: float = 1.0,
        semantic: float = 1.0,
        rule: str = "auto",
    ) -> io.NodeOutput:
        own = None if timestep < 0 else timestep
        by = None if rule == "auto" else rule
        return io.NodeOutput(*comfy_backbone.one_step_sampler(model, own, pixel_model, pixel, semantic, by))
