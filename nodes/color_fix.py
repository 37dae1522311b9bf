"""Node: the colours of the LQ picture for the restored one, what is coarse in it, and its exact size."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io

from ..pgp_core.choices import COLOR_FIXES
from ..pgp_core.errors import PGPError
from ..pgp_core.images.canvas import uncanvas
from ..pgp_core.images.checked import checked_pictures
from ..pgp_core.images.color_fix import color_fix
from ..pgp_core.images.fidelity import check_fidelity, follow
from ..pgp_core.images.resampling import enlarge
from ..pgp_core.images.sizes import MAX_SIDE, same_proportions
from ..pgp_core.images.wrap import MARGIN, Wrap
from ..pgp_core.number import number
from .inputs import fidelity_input, wrap_input

log = logging.getLogger(__name__)

#: Pixels by which sides may be off that were rounded to positions of a latent.
CELL = 8


class PGPDiffSRColorFix(io.ComfyNode):
    """Gives a restored picture the colours, and the alpha channel, of the low-quality one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPDiffSRColorFix",
            display_name="PGP-DiffSR Colour Fix",
            category="PGP-DiffSR",
            description=(
                "Gives the restored picture the colours of the low-quality one: wavelet keeps its detail and takes "
                "the rest, adain gives each channel the mean and contrast of the whole. Fidelity lets it follow the "
                "low-quality picture in more. Alpha comes along. Then the canvas's frame is cut off."
            ),
            search_aliases=["pgp", "color fix", "wavelet", "adain", "colour transfer", "color match", "fidelity"],
            inputs=[
                io.Image.Input("image", tooltip="The restored picture, from VAE Decode."),
                io.Image.Input(
                    "reference",
                    tooltip="The canvas, or any version of the low-quality picture: a smaller one is enlarged.",
                ),
                io.Combo.Input(
                    "method", options=list(COLOR_FIXES), default="wavelet", tooltip="none leaves colours alone."
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    tooltip="Crop the middle to this width, from PGP-DiffSR Canvas; 0 does not crop.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    tooltip="Crop the middle to this height, from PGP-DiffSR Canvas; 0 does not crop.",
                ),
                wrap_input(
                    "As in PGP-DiffSR Canvas, whose output is then the reference: the margins along these axes "
                    "are cut off."
                ),
                fidelity_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture with its colours put right.")],
        )

    @classmethod
    def execute(
        cls,
        image: io.Image.Type,
        reference: io.Image.Type,
        method: str,
        width: int = 0,
        height: int = 0,
        wrap: str = "none",
        fidelity: float = 0.0,
    ) -> io.NodeOutput:
        around = Wrap(wrap)
        number(width, "PGP-DiffSR Colour Fix: width must be", 0, MAX_SIDE, whole=True)
        number(height, "PGP-DiffSR Colour Fix: height must be", 0, MAX_SIDE, whole=True)
        check_fidelity(fidelity, "PGP-DiffSR Colour Fix: fidelity must be")
        image = checked_pictures(image, "PGP-DiffSR Colour Fix", log.warning)
        reference = checked_pictures(reference, "PGP-DiffSR Colour Fix's reference", log.warning)
        if 1 in (image.shape[-1], reference.shape[-1]):
            image, reference = (_rgb(x) for x in (image, reference))
        pictures, references = image.movedim(-1, 1), reference.movedim(-1, 1)
        if references.shape[-2:] != pictures.shape[-2:]:
            if around:
                raise PGPError(
                    "PGP-DiffSR Colour Fix: with wrap the reference is the canvas, as large as the image; connect "
                    "PGP-DiffSR Canvas"
                )
            have, want = references.shape[-2:], pictures.shape[-2:]
            if not same_proportions(have, want, CELL):
                raise PGPError(
                    f"PGP-DiffSR Colour Fix: the reference is {have[1]} x {have[0]} pixels, the image {want[1]} x "
                    f"{want[0]}, and resizing would put colours in wrong places; connect the canvas that was encoded"
                )
            references = enlarge(references, pictures.shape[-1], pictures.shape[-2])
        source = references if references.shape[1] == 4 else pictures
        alpha = source[:, 3:] if source.shape[1] == 4 else None
        fixed = color_fix(pictures[:, :3], references[:, :3], method, alpha=alpha, wrap=around)
        fixed = follow(fixed, references[:, :3], fidelity, alpha=alpha, wrap=around)
        if alpha is not None:
            fixed = torch.cat([fixed, alpha.to(fixed).expand(len(fixed), -1, -1, -1)], 1)
        # Without margins there is nothing to cut off, which is said.
        across, down = (max(1, fixed.shape[d] - (2 * MARGIN if d in around.dims else 0)) for d in (-1, -2))
        fixed = uncanvas(fixed, width or across, height or down, around)
        return io.NodeOutput(fixed.movedim(1, -1).contiguous())


def _rgb(image: torch.Tensor) -> torch.Tensor:
    """Grey as RGB; what has colours stays as it is."""
    return image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image
