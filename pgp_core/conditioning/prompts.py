"""SDXL's two text encoders, from a diffusers folder on this machine; nothing is fetched."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, name_some
from ..files import diffusers_folder
from ..files.checkpoints import check_finite
from ..files.prefixes import beneath, find_home
from ..files.scaled_fp8 import name_quantised
from ..files.weights import open_weights
from ..files.what_it_is import described
from ..progress import Say
from .entries import Entry

_log = logging.getLogger(__name__)
_COMPONENTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
_INSTEAD = "give --conditioning FILE, or the whole folder with both tokenizers and text encoders"


def check(folder: Path) -> None:
    """Whether a folder has all that prompts need.

    Raises:
        CheckpointError: naming what it lacks.
    """
    for name in _COMPONENTS:
        diffusers_folder.component(folder, name, _INSTEAD)


@torch.inference_mode()
def encode(
    folder: Path,
    texts: Sequence[str],
    device: torch.device | str = "cpu",
    say: Say = _log.warning,
) -> list[list[Entry]]:
    """What SDXL's text encoders make of some texts.

    Both encoders get the same text; their last hidden states but one stand side by side, and the pooled vector is the
    second's. An empty text is encoded like any other: SDXL's "zeros for an empty negative prompt" is not FaithDiff's.
    They run in float32, one at a time, and are gone afterwards.

    Args:
        folder: with ``tokenizer``, ``tokenizer_2``, ``text_encoder`` and ``text_encoder_2``.
        say: told where a text is longer than the 77 tokens that the encoders take, and its end left out.

    Returns:
        one CONDITIONING for each text, as :func:`pgp_core.conditioning.entries.save` takes it: a list of one entry
        ``[context (1, tokens, 2048), {"pooled_output": (1, 1280)}]``, on the CPU.

    Raises:
        CheckpointError: if the folder lacks something, or something in it cannot be read.
    """
    check(folder)
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    first = _encode(folder, "tokenizer", "text_encoder", CLIPTextModel, texts, device, say)
    second = _encode(folder, "tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection, texts, device, str)
    return [
        [[torch.cat((one.hidden_states[-2], two.hidden_states[-2]), -1).cpu(), {"pooled_output": two[0].cpu()}]]
        for one, two in zip(first, second, strict=True)
    ]


class TextEncoders:
    """Both text encoders, kept for many texts; the last ``keep`` results are remembered.

    Raises:
        CheckpointError: as :func:`encode`.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        keep: int = 1024,
        say: Say = _log.warning,
    ):
        check(folder)
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        self._first = _Encoder(folder, "tokenizer", "text_encoder", CLIPTextModel, device, dtype)
        self._second = _Encoder(folder, "tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection, device, dtype)
        self._say = say
        self._remembered = lru_cache(keep)(self._one)

    def __call__(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Context ``(1, tokens, 2048)`` and pooled vector ``(1, 1280)``, float32 on the CPU."""
        return self._remembered(text)

    @torch.inference_mode()
    def _one(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        one, two = self._first(text, self._say), self._second(text, str)
        context = torch.cat((one.hidden_states[-2], two.hidden_states[-2]), -1)
        return context.float().cpu(), two[0].float().cpu()


def _encode(
    folder: Path,
    tokenizer_name: str,
    encoder_name: str,
    kind: Any,
    texts: Sequence[str],
    device: Any,
    say: Say,
) -> list[Any]:
    encoder = _Encoder(folder, tokenizer_name, encoder_name, kind, device, torch.float32)
    return [encoder(text, say) for text in texts]


class _Encoder:
    """One tokenizer and its text encoder."""

    def __init__(
        self, folder: Path, tokenizer_name: str, encoder_name: str, kind: Any, device: Any, dtype: torch.dtype
    ):
        from transformers import CLIPTokenizer

        where = folder / encoder_name
        settings = diffusers_folder.config(where)
        if not settings:
            raise CheckpointError(f"{where} has no config.json: {_INSTEAD}")
        weights = _read_weights(where, encoder_name)
        try:
            with _without_progress_bar():
                self.tokenizer = CLIPTokenizer.from_pretrained(folder / tokenizer_name, local_files_only=True)
                encoder, found = kind.from_pretrained(
                    None, config=kind.config_class.from_dict(settings), state_dict=weights, output_loading_info=True
                )
        # transformers lets errors of every kind through where a file is damaged.
        except Exception as e:
            first = (str(e).strip().splitlines() or [repr(e)])[0]
            raise CheckpointError(f"{tokenizer_name} and {encoder_name} of {folder} cannot be read: {first}") from None
        if missing := found["missing_keys"]:
            # They would be drawn at random.
            raise CheckpointError(f"{encoder_name} of {folder} lacks {name_some(missing)}: get it again")
        self.encoder = encoder.to(device, dtype).eval()
        self.device = device
        self.length = min(self.tokenizer.model_max_length, encoder.config.max_position_embeddings)

    def __call__(self, text: str, say: Say) -> Any:
        whole = len(self.tokenizer(text, verbose=False).input_ids)
        if whole > self.length:
            say(f"the prompt has {whole} tokens, the text encoders take {self.length}: its end is left out")
        tokens = self.tokenizer(
            text, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        return self.encoder(tokens.input_ids.to(self.device), output_hidden_states=True)


def _read_weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """An encoder's weights, without what stands before their names; transformers' own reader knows no prefixes."""
    with open_weights(folder, part) as file:
        home = find_home(file.shapes, ("text_model.",)) or find_home(file.shapes, ("embeddings.",))
        if home is None:
            what = described(file.shapes)
            raise CheckpointError(f"{file.name} holds {f'{what}, ' if what else ''}no text encoder: {_INSTEAD}")
        part_of = beneath(file, home)
        if quantised := name_quantised(part_of.shapes):
            raise CheckpointError(f"{file.name} {quantised}")
        # The others are tables of positions, which are made anew.
        weights = {k: part_of.read(k) for k in part_of.shapes if k in part_of.floating}
    check_finite(weights, file.name)
    return {k: v.half() if v.itemsize == 1 else v for k, v in weights.items()}


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Loading takes a moment, and the command line has a bar of its own."""
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()
