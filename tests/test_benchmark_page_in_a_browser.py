"""The page of a benchmark as its reader has it: in a browser, from disk, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmark_scene as scene
import pytest
from browser import ARGUMENTS, NoBrowser, chromium

from pgp_core.evaluation.benchmark.page import write_page
from pgp_core.evaluation.benchmark.results import Pair, Results, Row

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(report: dict[str, str]) -> Iterator[Any]:
    try:
        executable = chromium()
    except NoBrowser as e:
        report["benchmark page"] = f"tests/test_benchmark_page_in_a_browser.py did NOT run: {e}"
        pytest.skip(str(e))
    from playwright.sync_api import sync_playwright

    path = str(executable) if executable else None
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    write_page(scene.benchmark(folder / "pictures"), folder / "page.html")
    return folder / "page.html"


class Tab:
    """A page that was opened; whatever it complains of, or asks for, is kept."""

    def __init__(self, context: Any, file: Path):
        self.page, self.said, self.asked = context.new_page(), [], []
        self.page.on("console", lambda m: self.said.append(m.text))
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.set_default_timeout(20_000)
        self.page.goto(file.as_uri(), wait_until="load")

    def js(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def rows(self) -> list[str]:
        return list(self.js("[...document.querySelectorAll('#table tbody th bdi')].map(e => e.textContent)"))

    def names(self) -> list[str]:
        return list(self.js("[...document.querySelectorAll('#list bdi')].map(e => e.textContent)"))

    def name(self) -> str:
        return str(self.page.inner_text("#name"))

    def shown(self, side: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of a side's picture, from the stage's corner."""
        box = self.js(
            f"(() => {{ const [a, b] = [document.querySelector('#layer-{side} img'), document.getElementById('stage')]"
            ".map(e => e.getBoundingClientRect()); return [a.left - b.left, a.top - b.top, a.width, a.height]; })()"
        )
        return tuple(box)


@pytest.fixture
def tab(browser: Any, file: Path) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Tab(context, file)
    yield opened
    context.close()
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in opened.asked) == 1


def test_pictures_are_seen_and_nothing_else_is_loaded(tab: Tab) -> None:
    sizes = "[...document.querySelectorAll('.layer img, #strip img')].map(i => [i.naturalWidth, i.naturalHeight])"
    tab.page.keyboard.press("j")
    tab.js("Promise.all([...document.querySelectorAll('.layer img, #strip img')].map(i => i.decode()))")
    assert tab.js(sizes) == [list(s) for s in (*[scene.LARGE] * 2, scene.SMALL, *[scene.LARGE] * 4)]
    # A picture is decoded when it is looked at: those of other pairs are text still, but for thumbnails.
    assert tab.js("document.images.length") == 7 + len(scene.NAMES)
    assert tab.js("document.querySelectorAll('#list img')[0].naturalWidth") == scene.SMALL[0]


def test_the_table_sorts_by_mouse_and_by_keyboard(tab: Tab) -> None:
    assert tab.rows() == ["bicubic", "model", "folder"]
    tab.page.click("#table thead th:nth-child(2) button")
    assert tab.rows()[0] == "model"
    assert tab.page.get_attribute("#table thead th:nth-child(2)", "aria-sort") == "ascending"
    tab.page.keyboard.press("Enter")
    assert tab.rows()[-1] == "model"
    assert tab.page.get_attribute("#table thead th:nth-child(2)", "aria-sort") == "descending"
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Space")
    # NIQE: less is better.
    assert tab.rows()[0] != "model" and tab.rows()[-1] == "model"
    best = "document.querySelector('#table td.best').parentElement.querySelector('bdi').textContent"
    assert tab.js(best) in ("model", "bicubic", "folder")
    assert "pyiqa is not installed" in tab.page.inner_text("#missing")


def test_differences_to_any_row_and_whether_by_chance(tab: Tab) -> None:
    cell = "#table tbody tr:nth-child({}) td:nth-child(2) .difference"
    assert tab.page.inner_text(cell.format(2)) == "+1.00 ✓"
    # Half the pictures are above, half below.
    assert tab.page.inner_text(cell.format(3)).endswith("≈")
    tab.page.select_option("#against", label="model")
    assert tab.page.inner_text(cell.format(1)) == "\u22121.00 ✗"
    tab.page.select_option("#against", label="none")
    assert tab.page.locator(".difference").count() == 0


def test_the_divider_follows_mouse_and_keys(tab: Tab) -> None:
    clip = "document.getElementById('layer-right').style.clipPath"
    box = tab.page.locator("#stage").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60)
    tab.page.mouse.up()
    assert tab.js("Number(document.getElementById('divider').value)") == pytest.approx(250, abs=3)
    left = float(tab.js(clip).split()[-1].rstrip("px)"))
    assert left == pytest.approx(box["width"] / 4, abs=2)
    tab.page.keyboard.press("]")
    assert tab.js("Number(document.getElementById('divider').value)") == pytest.approx(300, abs=3)
    tab.page.focus("#divider")
    tab.page.keyboard.press("Home")
    assert tab.js(clip) == "inset(0px)"


def test_left_and_right_are_any_two(tab: Tab) -> None:
    chosen = "[document.getElementById('left').value, document.getElementById('right').value]"
    assert tab.js(chosen) == ["row0", "row2"]
    tab.page.keyboard.press("1")
    tab.page.keyboard.press("Shift+5")
    assert tab.js(chosen) == ["lq", "hq"]
    tab.page.keyboard.press("x")
    assert tab.js(chosen) == ["hq", "lq"]
    tab.page.select_option("#left", "row1")
    tab.page.click("#strip button[data-column='row0']")
    assert tab.js(chosen) == ["row1", "row0"]
    assert tab.js("document.querySelector('#layer-left img').alt").startswith("model of")


def test_zoom_and_place_are_one_for_all(tab: Tab) -> None:
    tab.page.keyboard.press("1")
    tab.page.keyboard.press("Shift+5")
    tab.page.click("#zooms [data-zoom='1']")
    # The LQ picture lies over the same place, at HQ's size.
    assert tab.shown("left") == tab.shown("right")
    assert tab.shown("left")[2:] == scene.LARGE
    tab.page.keyboard.press("+")
    assert tab.shown("left")[2:] == tuple(2 * n for n in scene.LARGE)
    assert tab.js("document.querySelector('#layer-right img').classList.contains('pixels')")
    # What is zoomed may be moved, as far as the picture goes.
    tab.page.click("#zooms [data-zoom='8']")
    tab.js("document.getElementById('stage').style.width = '300px'")
    tab.page.wait_for_timeout(100)
    before = tab.shown("left")
    tab.page.focus("#stage")
    tab.page.keyboard.press("ArrowRight")
    after = tab.shown("left")
    assert after[0] == pytest.approx(before[0] - 60, abs=0.1) and tab.shown("right") == after
    for _ in range(20):
        tab.page.keyboard.press("ArrowRight")
    assert tab.shown("left")[0] == pytest.approx(300 - 8 * scene.LARGE[0], abs=0.1)
    frames = tab.js("[...document.querySelectorAll('#strip img')].map(i => i.getBoundingClientRect().width)")
    assert frames == [8 * scene.LARGE[0]] * 4 or frames == [8 * scene.LARGE[0]] * 5
    tab.page.keyboard.press("0")
    assert tab.shown("left")[2] <= 300


def test_keys_go_through_the_pictures(tab: Tab) -> None:
    seen = [tab.name()]
    for key in ("j", "ArrowRight", "j", "k", "ArrowLeft"):
        tab.page.keyboard.press(key)
        seen.append(tab.name())
    assert seen == [scene.NAMES[i] for i in (0, 1, 2, 3, 2, 1)]
    # In a field, letters are letters.
    tab.page.click("#filter")
    tab.page.keyboard.type("j")
    assert tab.names() == []
    tab.page.fill("#filter", "A")
    assert tab.names() == ["apple", "boat", "<i>chair</i>", "flag", "gate", "hat"]
    tab.page.fill("#filter", "ד")
    assert tab.names() == ["דג"] == [tab.name()]


def test_orders(tab: Tab) -> None:
    assert tab.names() == list(scene.NAMES)
    tab.page.select_option("#order", "worst")
    tab.page.select_option("#row-a", label="model")
    # PSNR falls by 1 from one picture to the next.
    assert tab.names() == list(reversed(scene.NAMES)) and tab.name() == "hat"
    tab.page.select_option("#order", "best")
    assert tab.names() == list(scene.NAMES)
    tab.page.select_option("#by", label="NIQE")
    tab.page.select_option("#order", "worst")
    assert tab.names() == list(reversed(scene.NAMES))
    # A picture that failed is worse than any figure.
    tab.page.select_option("#row-a", label="folder")
    assert tab.names()[0] == "apple"
    tab.page.select_option("#order", "difference")
    tab.page.select_option("#by", label="PSNR-Y (dB)")
    tab.page.select_option("#row-b", label="model")
    # By 1.5 on odd pictures, 0.5 on even ones, none on the first.
    assert tab.names() == [scene.NAMES[i] for i in (1, 3, 5, 7, 2, 4, 6, 0)]


def test_figures_of_a_picture_and_what_failed(tab: Tab) -> None:
    table = "[...document.querySelectorAll('#scores tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    assert tab.js(table)[:2] == [
        [
            "bicubic",
            "30.00",
            "5.00",
            "\N{EN DASH}",
        ],
        ["model", "31.00", "6.00", "0.25"],
    ]
    assert tab.js(table)[2] == ["folder", "it is damaged"]
    assert "failed: it is damaged" in tab.page.inner_text("#nothing")
    assert "folder: apple: it is damaged" in tab.page.inner_text("#about")
    tab.page.keyboard.press("j")
    assert tab.js(table)[2] == ["folder", "28.50", "4.60", "\N{EN DASH}"]
    assert tab.js("document.getElementById('nothing').hidden")


def test_names_are_only_text(tab: Tab) -> None:
    assert tab.page.locator("#list i").count() == 0
    for _ in range(2):
        tab.page.keyboard.press("j")
    assert tab.name() == "<i>chair</i>"


def test_tables_are_copied(browser: Any, file: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    tab = Tab(context, file)
    for button, what in (("#copy-markdown", "markdown"), ("#copy-latex", "latex")):
        tab.page.click(button)
        tab.page.locator("#copied", has_text="copied").wait_for()
        expected = json.loads(tab.js("document.getElementById('data').textContent"))["table"][what]
        assert tab.js("navigator.clipboard.readText()") == expected
        tab.js("document.getElementById('copied').textContent = ''")
    context.close()
    assert tab.said == []


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1600, 1000, "light"), (1280, 720, "dark"), (390, 844, "light")]
)
def test_it_fits_the_window_and_everything_has_a_name(
    browser: Any, file: Path, width: int, height: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = Tab(context, file)
    # Nothing but what scrolls by itself is wider than the window.
    assert tab.js("document.documentElement.scrollWidth") <= width
    nameless = (
        "[...document.querySelectorAll('button, select, input, summary')].filter(e => e.checkVisibility()"
        " && !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert tab.js(nameless) == 0
    assert tab.js("[...document.querySelectorAll('select')].every(e => e.closest('label'))")
    luma = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert (tab.js(luma) < 128) == (scheme == "dark")
    tab.page.click("#theme")
    assert tab.js(luma) < 128
    tab.page.click("#theme")
    assert tab.js(luma) > 128
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Tab")
    assert tab.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    context.close()
    assert tab.said == []


def test_pictures_alone_have_a_page_too(browser: Any, tmp_path: Path) -> None:
    results = scene.benchmark(tmp_path / "pictures")
    row = Row("photos", "folder", {}, results.rows[1].files, {n: {"niqe": 4.0} for n in scene.NAMES})
    write_page(Results("pictures", [Pair(n) for n in scene.NAMES], [row], ["niqe"]), tmp_path / "page.html")
    context = browser.new_context()
    tab = Tab(context, tmp_path / "page.html")
    assert tab.name() == "apple" and tab.rows() == ["photos"]
    assert tab.js("document.querySelector('#layer-left img').naturalWidth") == scene.LARGE[0]
    assert tab.js("document.querySelectorAll('#strip button').length") == 1
    context.close()
    assert tab.said == []
