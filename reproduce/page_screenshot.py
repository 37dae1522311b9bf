"""The page of a benchmark, as docs/benchmarks.md shows it: scikit-image's photographs, degraded and restored.

    python reproduce/page_screenshot.py -o docs/benchmark-page.jpg

runs ``pgp-diffsr eval pairs`` on them (bicubic, and nano in one step), opens the page that it writes in a headless
Chromium (Playwright's, the system's, or ``--chromium``), and takes a picture of it. ``--keep DIR`` keeps the page.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from pgp_core.files.atomic import replacing

#: Bytes that the documentation has for it.
MOST = 200_000
LONGEST = 512
METRICS = "psnr_y,ssim,niqe,haarpsi,gmsd,sharpness"


def benchmark(folder: Path) -> Path:
    """Make the page."""
    # Here, because the processes that measure read this file too.
    from pgp_core.cli import main
    from pgp_core.evaluation.cases import cases
    from pgp_core.evaluation.photographs import whole_photographs

    for case in cases(whole_photographs(LONGEST)):
        for which, picture in (("lq", case.lq), ("hq", case.hq)):
            (folder / which).mkdir(parents=True, exist_ok=True)
            picture.save(folder / which / f"{case.name}.png")
    given = ["--lq", str(folder / "lq"), "--hq", str(folder / "hq"), "-o", str(folder / "out"), "--metrics", METRICS]
    if status := main(["eval", "pairs", *given, "--model", "nano", "--name", "nano, one step"]):
        raise SystemExit(status)
    return folder / "out" / "index.html"


def picture(page: Path, width: int, height: int, executable: str | None) -> Image.Image:
    """What one sees, with the picture first on which the rows differ most."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.select_option("#order", "difference")
        tab.select_option("#by", label="HaarPSI")
        # Seconds are those of the machine that happened to make it.
        tab.evaluate("document.querySelectorAll('#table tr > :last-child').forEach(cell => { cell.hidden = true; })")
        tab.wait_for_timeout(500)
        shot = tab.screenshot()
        browser.close()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.jpg")
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1000), metavar=("W", "H"))
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        page = benchmark(args.keep or Path(made))
        shot = picture(page, *args.size, args.chromium)
    for quality in range(92, 50, -3):
        with replacing(args.output) as temporary:
            shot.save(temporary, "JPEG", quality=quality, optimize=True)
        if args.output.stat().st_size <= MOST:
            break


if __name__ == "__main__":
    run()
