"""Good input that cases are made from."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import archives
import conditionings
import reports
import torch
from mutations.files import Raw
from PIL import Image, ImageCms
from toy_runs import batches, toy_runner

from pgp_core.conditioning import entries as conditioning
from pgp_core.files.checkpoints import write_safetensors
from pgp_core.restorers.nano import model as nano
from pgp_core.training.config import READY
from pgp_core.training.state import FORMAT
from pgp_core.unet.known import TOPOLOGIES
from pgp_core.unet.plan import load_plan


class Prepared:
    """Each is made when it is first asked for.

    Args:
        folder: for files that are only read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def plan(self) -> Any:
        return load_plan("pgp-nano").to_json()

    @functools.cached_property
    def report(self) -> Any:
        return json.loads(reports.drawn(TOPOLOGIES["pgp-nano"], 0).dumps())

    @functools.cached_property
    def configs(self) -> list[str]:
        return [p.read_text() for p in sorted(READY.glob("*.toml"))]

    @functools.cached_property
    def unet(self) -> Raw:
        """A whole UNet."""
        return Raw.read(nano.FOLDER / nano.UNET_FILE)

    @functools.cached_property
    def guidance(self) -> Raw:
        return Raw.read(nano.FOLDER / nano.GUIDANCE_FILE)

    @functools.cached_property
    def lora(self) -> Raw:
        return Raw.read(nano.FOLDER / nano.S1_FILE)

    @functools.cached_property
    def conditioning(self) -> Raw:
        path = self.folder / "conditioning.safetensors"
        conditioning.save(path, [conditionings.small(width=512, height=512)], "a prompt")
        return Raw.read(path)

    @functools.cached_property
    def archive(self) -> list[archives.Entry]:
        """A few tensors, as ``torch.save`` writes them."""
        weights = {f"a.{i}.weight": torch.arange(12.0 + i) for i in range(4)}
        weights["half"] = torch.arange(7).half()
        return archives.saved({"state_dict": weights, "epoch": 3})

    @functools.cached_property
    def state(self) -> dict[str, Any]:
        """A checkpoint of a run that was broken off."""
        runner = toy_runner(self.folder / "run", run_steps=3)
        runner.run(batches, progress=False)
        loaded = torch.load(self.folder / "run" / "state.pt", weights_only=True)
        assert loaded["format"] == FORMAT
        return dict(loaded)

    @functools.cached_property
    def profile(self) -> bytes:
        """An ICC profile."""
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    @functools.cached_property
    def vae_config(self) -> dict[str, Any]:
        return {"_class_name": "AutoencoderKL", "scaling_factor": 0.13025, "shift_factor": None}

    @functools.cached_property
    def safe(self) -> Path:
        """A folder with a few good files, for command lines."""
        folder = self.folder / "safe"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4), (200, 100, 50)).save(folder / "a.png")
        (folder / "plan.json").write_text(json.dumps(self.plan))
        (folder / "report.json").write_text(json.dumps(self.report))
        (folder / "run.toml").write_text(self.configs[0])
        (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
        write_safetensors(folder / "some.safetensors", {"x": torch.zeros(2)})
        torch.save({"x": torch.zeros(2)}, folder / "some.bin")
        return folder


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
