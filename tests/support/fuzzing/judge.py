"""Runs one case and says what is wrong with how it ended."""

from __future__ import annotations

import random
import re
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from pgp_core.errors import PGPError

from . import archives, commands, pictures, texts, training, weights
from .prepared import Prepared

Target = Callable[[random.Random, Path, Prepared], str | None]

#: By what they read.
TARGETS: dict[str, Target] = {
    "pictures": pictures.picture,
    "metadata": pictures.metadata,
    "plan": texts.plan,
    "report": texts.report,
    "toml": texts.toml,
    "overrides": texts.overrides,
    "folder": texts.folder,
    "log": training.log,
    "state": training.state,
    "painted": training.painted,
    "safetensors": weights.safetensors,
    "guidance": weights.guidance,
    "conditioning": weights.conditioning,
    "lora": weights.lora,
    "archive": archives.archive,
    "pickle": archives.pickled,
    "argv": commands.argv,
}
_LONGEST = 900
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Failure(AssertionError):
    """A case that ended in another way than it may."""


def run_case(target: str, rng: random.Random, folder: Path, prepared: Prepared, seconds: float | None = None) -> str:
    """Run one case.

    Args:
        folder: for its files; emptied before.
        seconds: of computing that the case may take; None for any.

    Returns:
        "ok", how a command line ended, or the class of the error of ours that it ended in.

    Raises:
        Failure: if it ended in another error, in more than one clear line, late, or left temporary files.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.process_time()
    ended = "ok"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ended = TARGETS[target](rng, folder, prepared) or ended
        except PGPError as e:
            ended, text = type(e).__name__, str(e)
            if not text or len(text) > _LONGEST or _CONTROL.search(text):
                raise Failure(f"{target}: unclear: {text!r}") from e
        except Failure:
            raise
        except Exception as e:
            where = "".join(traceback.format_exception(e)[-4:])
            raise Failure(f"{target}: {type(e).__name__}: {str(e)[:300]}\n{where}") from e
    taken = time.process_time() - started
    if seconds is not None and taken > seconds:
        raise Failure(f"{target}: {taken:.0f} s")
    left = [p.name for p in folder.rglob("*") if p.name.endswith((".tmp", ".pgp-lock"))]
    if left:
        raise Failure(f"{target}: left {left}")
    return ended
