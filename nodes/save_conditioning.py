"""Node: CONDITIONING to a file."""

from __future__ import annotations

from comfy_api.latest import io, ui

from . import comfy_backbone


class PGPDiffSRSaveConditioning(io.ComfyNode):
    """Keeps what the text encoders made of a prompt, so that they need not be loaded again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRSaveConditioning",
            display_name="Save PGP-DiffSR Conditioning",
            category="PGP-DiffSR",
            description=(
                "Saves an encoded prompt as safetensors in the output folder. Load PGP-DiffSR Conditioning gives the "
                "same bits back without a text encoder, and the command line reads the file too."
            ),
            search_aliases=["pgp", "save conditioning", "cache prompt", "export conditioning", "text encoder"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The encoded prompt. With hooks, ControlNet, masks or areas it is refused: those are not "
                    "the prompt's.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="conditioning/ComfyUI",
                    tooltip="Name below ComfyUI's output folder; a number is added. What is saved below conditioning/ "
                    "is in the loader's list after a refresh.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The prompt's text, written into the file for people to read. It may be left empty and "
                    "changes nothing.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, conditioning: io.Conditioning.Type, filename_prefix: str, prompt: str = "") -> io.NodeOutput:
        name = comfy_backbone.save_conditioning(conditioning, filename_prefix, prompt)
        hint = "" if comfy_backbone.is_listed(name) else " (not below conditioning/: the loader does not list it)"
        return io.NodeOutput(ui=ui.PreviewText(f"{name}{hint}"))
