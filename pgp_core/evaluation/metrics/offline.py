"""Keeping libraries that download by themselves from doing so."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: What Hugging Face's libraries ask before they fetch something.
_WORDS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextmanager
def offline(wanted: bool = True) -> Iterator[None]:
    """A block in which nothing of this process reaches another machine.

    Hugging Face's libraries are told so, and look into their cache; whatever else would ask for a host's address is
    refused with an OSError. Other threads are refused too, so the block should be short.

    Args:
        wanted: False for a block that may download.
    """
    if not wanted:
        yield
        return

    def refused(host: Any, *args: Any, **kwargs: Any) -> Any:
        raise OSError(f"{host} is not asked: nothing is downloaded")

    resolve, before = socket.getaddrinfo, {word: os.environ.get(word) for word in _WORDS}
    socket.getaddrinfo = refused
    os.environ |= dict.fromkeys(_WORDS, "1")
    _tell_hub(True)
    try:
        yield
    finally:
        socket.getaddrinfo = resolve
        for word, value in before.items():
            if value is None:
                os.environ.pop(word, None)
            else:
                os.environ[word] = value
        _tell_hub((before["HF_HUB_OFFLINE"] or "").upper() in {"1", "ON", "YES", "TRUE"})


def _tell_hub(offline: bool) -> None:
    """It reads the word once, when it is imported."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
