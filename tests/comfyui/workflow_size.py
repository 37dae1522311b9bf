"""Which size a workflow's result must have, from what its nodes are documented to do."""

from __future__ import annotations

from typing import Any

#: Nodes that keep a picture's size, and the input that it comes in by. Latents count in pixels.
KEEP = {
    "SaveImage": "images",
    "RebatchImages": "images",
    "VAEDecode": "samples",
    "VAEEncode": "pixels",
    "LatentAdd": "samples1",
    "LatentMultiply": "samples",
    "KSampler": "latent_image",
    "SamplerCustomAdvanced": "latent_image",
}


def canvas_size(prompt: dict[str, Any], node: str, loaded: tuple[int, int]) -> tuple[int, int]:
    """``(width, height)`` of what arrives at or leaves a node.

    Args:
        prompt: in the API's format.
        node: its id.
        loaded: width and height of the picture that LoadImage loads.

    Raises:
        NotImplementedError: for a node that this function does not know.
    """
    kind, inputs = prompt[node]["class_type"], prompt[node]["inputs"]
    if kind == "LoadImage":
        return loaded
    if kind in KEEP:
        return canvas_size(prompt, inputs[KEEP[kind]][0], loaded)
    if kind == "PGPDiffSRColorFix":
        # It crops to the size that the canvas node says.
        assert inputs["width"][0] == inputs["height"][0]
        return canvas_size(prompt, inputs["width"][0], loaded)
    if kind == "PGPDiffSRCanvas":
        assert inputs["by"] == "scale"
        width, height = canvas_size(prompt, inputs["image"][0], loaded)
        return int(width * inputs["scale"] + 0.5), int(height * inputs["scale"] + 0.5)
    if kind == "ImageScaleToMaxDimension":
        width, height = canvas_size(prompt, inputs["image"][0], loaded)
        largest = inputs["largest_size"]
        factor = largest / max(width, height)
        return (largest, round(height * factor)) if width >= height else (round(width * factor), largest)
    raise NotImplementedError(f"what does {kind} do to a picture's size?")
