"""What a user gives of a model, whatever family it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PGPError

if TYPE_CHECKING:
    from ..unet.plan import PrunePlan

#: What the bundled model is called where a file may be given.
SHORT_NAME = "nano"


@dataclass(frozen=True)
class Given:
    """Where the parts of a model are, and how it is to be put together. What is not given is the family's to find.

    Attributes:
        model: a file with a UNet: alone, in a checkpoint, or a restorer's own; None to take the one in ``base``, or
            where there is no base either, the bundled model.
        base: a folder as diffusers saves it, or a checkpoint, for what is given nowhere else.
        guidance: a guidance file, or FaithDiff's; None for the one in ``model`` if that is FaithDiff's.
        vae: a file, or a diffusers ``vae`` folder.
        plan: blocks that are left in the file.
        loras: added to the UNet's weights; files, or folders as PEFT saves them.
        semantic_lora: the second LoRA for one step, on top of ``loras`` (PiSA-SR).
        pixel, semantic: strengths of the two, see :class:`pgp_core.sampling.one_step.Dial`; None for 1.
        natural: of a model that has two LoRAs for one step, see :class:`.recipe.Recipe`; None for the model's own.
        prompt, negative_prompt: encoded with the text encoders of ``base``; None for the family's.
        conditioning, negative_conditioning: saved CONDITIONING in place of either prompt.
        one_step: for one UNet call, or for steps; None as the family is meant to be used.
        cfg: with which it will be used; None for the model's own. 1 needs no negative prompt.
        dtype: of the UNet, by PyTorch's name; None for the family's choice.
    """

    model: Path | None = None
    base: Path | None = None
    guidance: Path | None = None
    vae: Path | None = None
    plan: PrunePlan | None = None
    loras: tuple[Path, ...] = ()
    semantic_lora: Path | None = None
    pixel: float | None = None
    semantic: float | None = None
    natural: float | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    conditioning: Path | None = None
    negative_conditioning: Path | None = None
    one_step: bool | None = None
    cfg: float | None = None
    dtype: str | None = None

    @property
    def named(self) -> frozenset[str]:
        """Names of what is given."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) not in (None, ()))

    @property
    def bundled(self) -> bool:
        """Whether it asks for the bundled model: by its short name, or with no model at all."""
        return self.base is None if self.model is None else str(self.model) == SHORT_NAME

    def files(self) -> Iterator[Path]:
        """All files and folders that are given."""
        one = (self.model, self.base, self.guidance, self.vae, self.semantic_lora)
        two = (self.conditioning, self.negative_conditioning)
        yield from (path for path in (*one, *two, *self.loras) if path is not None)

    def contradiction(self) -> str | None:
        """What does not go together whatever the family, in the words of the command line, or None."""
        for kind in ("", "negative_"):
            if getattr(self, f"{kind}prompt") is not None and getattr(self, f"{kind}conditioning") is not None:
                dashed = kind.replace("_", "-")
                return f"--{dashed}prompt and --{dashed}conditioning both say the same thing: give one of them"
        if self.semantic_lora is not None and self.one_step is False:
            return "--semantic-lora is for --one-step"
        if self.natural is not None and self.one_step is False:
            return "--natural is for one step: leave out --natural or --steps"
        if self.semantic_lora is None and (self.pixel is not None or self.semantic is not None):
            return "--pixel and --semantic weigh two LoRAs: give the second with --semantic-lora"
        return None

    def check_files(self) -> None:
        """Whether they are there.

        Raises:
            PGPError: naming the first that is not.
        """
        for path in self.files():
            if not path.exists():
                raise PGPError(f"there is no {path}: nothing is downloaded, give a file on this machine")
