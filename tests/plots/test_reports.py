"""Plots of redundancy reports: what they show, that it can be read, and that nothing from outside changes them."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import matplotlib
import numpy as np
import pytest
from drawn_reports import MAPS, PICTURES, TIMES, module_features, report, series
from matplotlib.backends.backend_agg import RendererAgg

from pgp_core.errors import PGPError, ReportError
from pgp_core.plots import boxes, feature_maps, heat_map, module_maps, over_time, phase_strip
from pgp_core.plots.numbers import log_range, short, tick
from pgp_core.redundancy.report import MODULES, Report
from pgp_core.unet.known import NANO, SDXL
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan
from pgp_core.unet.topology import Topology

PLAN = load_plan("pgp-sdxl")


def constant(value: float, topology: Topology = SDXL) -> Report:
    made = report(topology, value=lambda row, n: value)
    return report(topology, blocks=made.blocks, modules={m: series(value) for m in MODULES})


DRAWINGS: dict[str, Callable[..., Any]] = {
    "boxes": lambda **size: boxes(report(), **size),
    "boxes, one measure": lambda **size: boxes(report(), "psi_kl", **size),
    "boxes, log": lambda **size: boxes(
        report(modules={m: series(10.0 ** (2 * i - 7)) for i, m in enumerate(MODULES)}), **size
    ),
    "heat map": lambda **size: heat_map(report(), PLAN, **size),
    "heat map, no plan": lambda **size: heat_map(report(), measure="psi_kl", **size),
    "heat map, log": lambda **size: heat_map(report(value=lambda row, n: 10.0 ** (row - n - 6)), PLAN, **size),
    "heat map, nano": lambda **size: heat_map(report(NANO), **size),
    "heat map, gaps": lambda **size: heat_map(
        report(blocks={k: {0: v[0]} for k, v in report().blocks.items() if k.startswith("down")}), PLAN, **size
    ),
    "over time": lambda **size: over_time(report(), **size),
    "over time, one": lambda **size: over_time(report(times=[500]), "psi_kl", **size),
    "feature maps": lambda **size: feature_maps(MAPS, **size),
    "module maps": lambda **size: module_maps(report(maps=module_features()), **size),
    "phase": lambda **size: phase_strip(PICTURES, **size),
    "boxes, empty": lambda **size: boxes(report(modules={}), **size),
    "heat map, empty": lambda **size: heat_map(report(blocks={}), PLAN, **size),
    "over time, empty": lambda **size: over_time(report(modules={}), **size),
    "feature maps, empty": lambda **size: feature_maps([], **size),
    "zero": lambda **size: heat_map(constant(0.0), **size),
    "boxes, zero": lambda **size: boxes(constant(0.0), **size),
    "over time, zero": lambda **size: over_time(constant(0.0), **size),
    "huge": lambda **size: heat_map(constant(1e307), **size),
    "boxes, huge": lambda **size: boxes(constant(1e307), **size),
    "over time, huge": lambda **size: over_time(constant(1e307), **size),
    "long names": lambda **size: heat_map(
        report(model={"name": "$x^" * 90}), PrunePlan("a\n$\\frac" * 99, "sdxl", PLAN.stacks), **size
    ),
}


every_drawing = pytest.mark.parametrize("name", DRAWINGS)


# -- pictures ----------------------------------------------------------------------------------------------


@functools.cache
def written(name: str, **size: int) -> tuple[Any, list[tuple[str, float, Any]]]:
    """A drawing, and its texts with their sizes in points and their places."""
    texts = []
    render = RendererAgg.draw_text

    def seen(self: Any, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, *rest: Any, **more: Any) -> None:
        texts.append((s, prop.get_size_in_points(), more.get("mtext") or rest[-1]))
        render(self, gc, x, y, s, prop, angle, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RendererAgg, "draw_text", seen)
        picture = DRAWINGS[name](**size)
    return picture, [(text, points, artist.get_window_extent()) for text, points, artist in texts]


def plain(name: str) -> Any:
    """A drawing at its own size."""
    return written(name)[0]


#: What other packs may have set.
THEIRS = {
    "font.size": 30, "font.family": "monospace", "lines.linewidth": 9, "figure.dpi": 33, "axes.grid": True,
    "axes.labelsize": 40, "xtick.labelsize": 40, "figure.autolayout": True, "image.origin": "lower",
    "image.cmap": "jet", "axes.spines.top": False, "hatch.linewidth": 7, "patch.linewidth": 5, "text.color": "red",
    "axes.xmargin": 0.4, "xtick.minor.visible": True, "ytick.right": True, "image.interpolation": "bicubic",
    "lines.markersize": 30, "axes.titlepad": 50, "axes.unicode_minus": False, "legend.frameon": True,
}  # fmt: skip


@every_drawing
def test_a_picture_of_the_width_asked_for(name: str) -> None:
    picture = plain(name)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[1:] == (1024, 3)
    assert (picture[:4] == 255).all() and (picture[:, :4] == 255).all()
    assert len(np.unique(picture)) > 8


@every_drawing
def test_it_is_the_same_each_time_whatever_other_packs_have_set(name: str) -> None:
    with matplotlib.rc_context(THEIRS), matplotlib.style.context("dark_background"):
        assert (DRAWINGS[name]() == plain(name)).all()


@pytest.mark.parametrize("width, height", [(512, 300), (1024, 1024), (777, 1500), (2048, None), (400, 128), (301, 299)])
@pytest.mark.parametrize("name", ["boxes", "heat map", "over time", "feature maps", "phase"])
def test_sizes(name: str, width: int, height: int | None) -> None:
    picture = DRAWINGS[name](width=width, height=height)
    assert picture.shape[1] == width
    assert height is None or picture.shape[0] == height


@pytest.mark.parametrize("size", [{"width": 0}, {"width": 100_000}, {"height": -5}, {"width": 1024, "height": 20_000}])
def test_sizes_that_cannot_be(size: dict[str, int]) -> None:
    with pytest.raises(PGPError, match="must be 128 to 16384 pixels"):
        boxes(report(), **size)


@every_drawing
@pytest.mark.parametrize("size", [{}, {"width": 600, "height": 1200}, {"width": 1500, "height": 500}], ids=str)
def test_no_text_is_cut_off_or_lies_on_other_text(name: str, size: dict[str, int]) -> None:
    picture, texts = written(name, **size)
    assert texts
    places = []
    for text, points, box in texts:
        assert points >= 14, text
        assert 0 <= box.x0 < box.x1 <= picture.shape[1] and 0 <= box.y0 < box.y1 <= picture.shape[0], text
        places.append((text, box))
    for i, (text, a) in enumerate(places):
        for other, b in places[:i]:
            apart = min(a.x1, b.x1) - max(a.x0, b.x0) <= 1 or min(a.y1, b.y1) - max(a.y0, b.y0) <= 1
            assert apart, f"{text!r} on {other!r}"


def test_threads_draw_what_one_does() -> None:
    names = ["boxes", "heat map", "over time", "feature maps", "phase"] * 2
    with ThreadPoolExecutor(5) as pool:
        together = [f.result() for f in [pool.submit(DRAWINGS[name]) for name in names]]
    assert all((plain(name) == picture).all() for name, picture in zip(names, together, strict=True))


# -- what they show ----------------------------------------------------------------------------------------


def cell(figure: Any, row: int, column: int) -> tuple[slice, slice]:
    """Where a block's cell lies in the picture, a little inside of its frame."""
    axes = figure.axes[0]
    corners = axes.transData.transform([(column - 0.38, row - 0.33), (column + 0.38, row + 0.33)])
    (x0, y0), (x1, y1) = corners
    height = figure.bbox.height
    return slice(int(height - y0), int(height - y1)), slice(int(x0), int(x1))


def test_heat_map_shows_a_cut_block_without_colour_and_no_other_cell_changes(drawn: list[Any]) -> None:
    full = PrunePlan.full(SDXL, "p")
    cut = PrunePlan("p", "sdxl", {**full.stacks, "mid_block.attentions.0": StackPlan(10, (0, 1, 2, 4, 5, 6, 7, 8, 9))})
    for value in (0.01, 0.5, 1.0):
        same = report(value=lambda row, n, v=value: v if (row, n) == (4, 3) else 1.0)  # the scale goes up to 1
        kept, removed = heat_map(same, full), heat_map(same, cut)
        grey = np.abs(kept.astype(float).mean(-1) - removed.astype(float).mean(-1))
        for row, depth in enumerate(SDXL.depths.values()):
            for n in range(depth):
                changed = (grey[cell(drawn[-1], row, n)] > 40).mean()
                assert changed > 0.25 if (row, n) == (4, 3) else changed == 0, (row, n)


def test_heat_map_colours_by_value_dark_to_bright(drawn: list[Any]) -> None:
    picture = heat_map(report(value=lambda row, n: 0.1 * n))
    corner = [picture[cell(drawn[0], 5, n)][2, 2].astype(float).mean() for n in range(10)]
    assert corner == sorted(corner) and corner[-1] - corner[0] > 60
    assert (picture[cell(drawn[0], 0, 5)] == 255).all(), "a stack of two has no block 5"


def texts(figure: Any) -> list[str]:
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def test_heat_map_says_what_the_plan_removes(drawn: list[Any]) -> None:
    heat_map(report(), PLAN)
    # By hand: 1+1 (level 1), 9+9 (level 2), 9 (middle), 6+6+6; of 70; 20 M parameters each.
    assert "plan pgp-sdxl removes 47 of 70 blocks, 940 M of 2.57 G parameters" in texts(drawn[0])
    assert {"down 1.0", "mid 0", "up 1.2", "removed by the plan", "stays"} <= set(texts(drawn[0]))
    assert "not in the model, or did not run" not in texts(drawn[0])


def test_heat_map_of_a_pruned_model_has_empty_cells(drawn: list[Any]) -> None:
    whole = report()
    left = {k: {n: b for n, b in v.items() if PLAN.keeps(k, n)} for k, v in whole.blocks.items()}
    picture = heat_map(report(blocks=left, partial=True), PLAN)
    assert "plan pgp-sdxl removes 0 of 23 blocks, 0 of 2.57 G parameters" in texts(drawn[0])
    assert "not in the model, or did not run" in texts(drawn[0])
    assert any("partial" in t for t in texts(drawn[0]))
    assert (picture[cell(drawn[0], 4, 3)] == 255).all() and (picture[cell(drawn[0], 4, 0)] < 255).any()


def test_heat_map_says_where_its_colours_end(drawn: list[Any]) -> None:
    """Four decades of colour below the largest value: what is smaller has the colour of the last, and its number."""
    heat_map(report(value=lambda row, n: 10.0 ** (row - n - 10)), PLAN)
    assert {"log scale", "≤1e-4", "1.1"} <= set(texts(drawn[0]))


def test_heat_map_of_one_block_and_of_many() -> None:
    one = report().blocks["mid_block.attentions.0"][0]
    assert heat_map(report(topology=Topology("own", {}), blocks={"mid_block.attentions.0": {0: one}})).shape[1] == 1024
    deep = {"up_blocks.0.attentions.0": dict.fromkeys(range(40), one)}
    assert heat_map(report(topology=Topology("own", {}), blocks=deep)).shape[1] == 1024


def test_boxes_are_where_the_quartiles_are(drawn: list[Any]) -> None:
    boxes(report())
    for axes, factor in zip(drawn[0].axes, (1, 4), strict=True):
        ends = [(b.get_path().vertices[:, 1].min(), b.get_path().vertices[:, 1].max()) for b in axes.patches]
        expected = [(0.05 * (1 + i) * factor, 0.15 * (1 + i) * factor) for i in range(6)]
        assert np.allclose(ends, expected)
        assert [t.get_text() for t in axes.get_xticklabels()] == ["E_1", "E_2", "E_4", "B_4", "D_4", "D_2"]


def test_boxes_leave_a_place_for_what_was_not_measured(drawn: list[Any]) -> None:
    boxes(report(modules={"B_4": series(0.2)}, partial=True), "phi_cos")
    (axes,) = drawn[0].axes
    assert len(axes.patches) == 1 and texts(drawn[0]).count("\N{EN DASH}") == 5
    assert any("partial" in t for t in texts(drawn[0]))


def test_lines_run_from_noise_to_picture_and_differ_by_more_than_colour(drawn: list[Any]) -> None:
    over_time(report())
    (axes,) = drawn[0].axes
    left, right = axes.get_xlim()
    assert left > 949 and right < 49
    assert len({line.get_marker() for line in axes.lines}) == 6
    assert len({str(line._dash_pattern) for line in axes.lines}) == 6
    for i, line in enumerate(axes.lines):
        assert list(line.get_xdata()) == list(TIMES)
        assert np.allclose(line.get_ydata(), [0.1 * (1 + i) * (0.5 + t / 1000) for t in TIMES])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.05 * 0.549) and band[:, 1].max() == pytest.approx(0.15 * 1.449)


def test_many_timesteps() -> None:
    assert over_time(report(times=range(1000), blocks={})).shape[1] == 1024


@pytest.mark.parametrize(
    "draw", [lambda r: boxes(r, "l2"), lambda r: over_time(r, "l2"), lambda r: heat_map(r, None, "")]
)
def test_unknown_measure(draw: Callable[[Report], Any]) -> None:
    with pytest.raises(ReportError, match="choose one of phi_cos, psi_kl"):
        draw(report())


def test_plan_of_another_family() -> None:
    with pytest.raises(ReportError, match="pgp-sdxl is for sdxl, the report is of pgp-nano"):
        heat_map(report(NANO), PLAN)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(bad: float) -> None:
    for draw in boxes, heat_map, over_time:
        with pytest.raises(ReportError, match="measure again"):
            draw(constant(bad))


# -- numbers -----------------------------------------------------------------------------------------------


def test_short_numbers() -> None:
    expected = {
        0: "0", 4.2e-5: "4e-5", 0.00094: "9e-4", 0.00096: ".001", 0.0124: ".012", 0.0994: ".099", 0.0996: "0.10",
        0.374: "0.37", 0.994: "0.99", 0.996: "1.0", 1.44: "1.4", 9.94: "9.9", 9.96: "10", 12.4: "12", 999.4: "999",
        999.6: "1e3", 2.6e8: "3e8", 1e99: "1e99", 1e-12: "1e-12", 1e-300: "0", -0.5: "-0.50",
    }  # fmt: skip
    assert {v: short(v) for v in expected} == expected
    assert [tick(v) for v in (0, 0.5, 0.08, 0.0001, 250, 1e6)] == ["0", "0.5", "0.08", "1e-4", "250", "1e6"]


def test_scale_is_logarithmic_only_for_values_far_apart() -> None:
    assert log_range([]) is None and log_range([0.0, 0.0]) is None and log_range([0.0, 1.0, 90.0]) is None
    assert log_range([0.0, 1.0, 200.0]) == (1.0, 200.0)
    assert log_range([1e-30, 1.0]) == (1e-8, 1.0) and log_range([1e-30, 1.0], decades=4) == (1e-4, 1.0)


# -- matplotlib --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["boxes", "heat map", "over time", "feature maps", "phase"])
def test_without_matplotlib(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m == "matplotlib" or m.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PGPError, match=r"pgp-diffsr\[plot\].*python -m pip install matplotlib") as caught:
        DRAWINGS[name]()
    assert "\n" not in str(caught.value)


def test_matplotlib_is_imported_when_called_and_pyplot_never() -> None:
    script = (
        "import sys, torch, pgp_core.plots as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "p.phase_strip(torch.rand(1, 3, 8, 8))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        "assert not {'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
