"""A short video, as a camera or a phone saves it: H.264 in MP4."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from .locate import Comfy

#: PyAV comes with ComfyUI.
_WRITE = """
import sys, av, numpy as np
frames = np.load(sys.argv[1])
with av.open(sys.argv[2], "w") as file:
    stream = file.add_stream("h264", rate=int(sys.argv[3]))
    stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
    # Without loss behind yuv420p: equal frames stay equal.
    stream.options = {"qp": "0"}
    for frame in frames:
        file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    file.mux(stream.encode())
"""


def write(frames: torch.Tensor, file: Path, fps: int, comfy: Comfy) -> None:
    """Write ``(N, 3, H, W)`` in [0, 1], sides even, as MP4, in ComfyUI's Python."""
    import numpy as np

    array = file.with_suffix(".npy")
    np.save(array, (frames.movedim(1, -1) * 255).round().to(torch.uint8).numpy())
    subprocess.run([str(comfy.python), "-c", _WRITE, str(array), str(file), str(fps)], check=True, timeout=120)
    array.unlink()
