"""Draws who imports whom in ``pgp_core``: rooms, floors, arrows.

A *room* is a module or a package directly under ``pgp_core``; an *arrow* goes from a room to one that it imports,
wherever the import stands (at the top, in a function, for types alone). A room's *floor* is the longest way down from
it, so an arrow can only go up where rooms import each other by some detour. Those are drawn in red, and counted.

    python reproduce/draw_imports.py -o docs/imports-after.svg
    python reproduce/draw_imports.py --repo ../another-checkout -o docs/imports-before.svg
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = "pgp_core"

#: Pixels. A character of the font is about 0.6 of its size wide.
FONT, BOX, GAP, FLOOR, MARGIN, WIDE = 13, 26, 14, 74, 24, 820


@dataclass(frozen=True)
class Drawing:
    """What is drawn. ``floors`` is lowest first; ``up`` are the arrows that do not go down."""

    floors: tuple[tuple[str, ...], ...]
    arrows: frozenset[tuple[str, str]]
    up: frozenset[tuple[str, str]]

    def counts(self) -> str:
        """The four numbers in words."""
        rooms = sum(len(f) for f in self.floors)
        return f"{rooms} rooms, {len(self.floors)} floors, {len(self.arrows)} arrows, {len(self.up)} going up"


def read_arrows(package: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """Rooms of a package, and which imports which."""
    rooms = {p.stem for p in package.glob("*.py")} | {p.parent.name for p in package.glob("*/__init__.py")}
    rooms -= {"__init__", "__main__"}
    arrows = set()
    for file in sorted(package.rglob("*.py")):
        inside = file.relative_to(package)
        room = inside.parts[0].removesuffix(".py")
        for name in _imported(file, package):
            target = name.split(".")[0]
            if room in rooms and target in rooms and target != room:
                arrows.add((room, target))
    return rooms, arrows


def _imported(file: Path, package: Path) -> list[str]:
    """Dotted names below the package that a file imports."""
    here = (package.name, *file.relative_to(package).parent.parts)
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            found += [f"{module}.{a.name}" for a in node.names]
    start = package.name + "."
    return [name.removeprefix(start) for name in found if name.startswith(start)]


def arrows_up(rooms: set[str], arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The fewest arrows without which no room reaches itself.

    In a knot of up to seven rooms all orders are tried; in a larger one the arrows that close a circle on a walk in the
    order of names, which may be more than the fewest.
    """
    up: set[tuple[str, str]] = set()
    for knot in _knots(rooms, arrows):
        inside = {(a, b) for a, b in arrows if a in knot and b in knot}
        if len(knot) <= 7:
            orders = itertools.permutations(sorted(knot))
            up |= min(({(a, b) for a, b in inside if o.index(a) > o.index(b)} for o in orders), key=len)
        else:
            up |= _closing(knot, inside)
    return up


def _reach(rooms: set[str], arrows: set[tuple[str, str]]) -> dict[str, set[str]]:
    """All rooms below each room."""
    below = {r: {b for a, b in arrows if a == r} for r in rooms}
    for via in rooms:
        for r in rooms:
            if via in below[r]:
                below[r] |= below[via]
    return below


def _knots(rooms: set[str], arrows: set[tuple[str, str]]) -> list[set[str]]:
    """Groups of rooms that reach each other."""
    below = _reach(rooms, arrows)
    knots = {frozenset(o for o in rooms if o in below[r] and r in below[o]) for r in rooms if r in below[r]}
    return [set(k) for k in knots]


def _closing(knot: set[str], inside: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Arrows to a room that the walk is inside of."""
    found: set[tuple[str, str]] = set()
    done: set[str] = set()

    def walk(room: str, way: tuple[str, ...]) -> None:
        for target in sorted(b for a, b in inside if a == room):
            if target in way:
                found.add((room, target))
            elif target not in done:
                walk(target, (*way, target))
        done.add(room)

    for room in sorted(knot):
        if room not in done:
            walk(room, (room,))
    return found


def drawing(package: Path) -> Drawing:
    """Rooms on their floors."""
    rooms, arrows = read_arrows(package)
    up = arrows_up(rooms, arrows)
    height: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in height:
            height[room] = max((floor(b) + 1 for a, b in arrows - up if a == room), default=0)
        return height[room]

    for room in rooms:
        floor(room)
    levels = [sorted(r for r in rooms if height[r] == n) for n in range(max(height.values()) + 1)]
    return Drawing(_ordered(levels, arrows), frozenset(arrows), frozenset(up))


def _ordered(levels: list[list[str]], arrows: set[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Each floor in the order in which its arrows cross little: every room near the middle of its neighbours."""
    near: dict[str, list[str]] = {r: [] for level in levels for r in level}
    for a, b in arrows:
        near[a].append(b)
        near[b].append(a)
    for _ in range(24):
        place = {r: (i + 0.5) / len(level) for level in levels for i, r in enumerate(level)}
        for level in levels:
            level.sort(key=lambda r: (sum(place[n] for n in near[r]) / len(near[r]) if near[r] else 0.5, r))
    return tuple(tuple(level) for level in levels)


def svg(d: Drawing, title: str) -> str:
    """The drawing, highest floor on top."""
    width_of = {r: round(len(r) * FONT * 0.6) + 18 for level in d.floors for r in level}
    full = max(WIDE, *(sum(width_of[r] + GAP for r in level) for level in d.floors))
    width, height = full + 2 * MARGIN + 30, len(d.floors) * FLOOR + 64
    x: dict[str, float] = {}
    y: dict[str, float] = {}
    for n, level in enumerate(d.floors):
        spare = (full - sum(width_of[r] for r in level)) / len(level)
        at = MARGIN + 30 + spare / 2
        for r in level:
            x[r], y[r] = at + width_of[r] / 2, height - MARGIN - BOX - n * FLOOR
            at += width_of[r] + spare
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'font-family="sans-serif" font-size="{FONT}"><title>{escape(title)}</title>',
        "<style>path{fill:none;stroke:#4a6fa5;stroke-width:1;opacity:.38}path.u{stroke:#d1242f;stroke-width:2;opacity:1}"
        "rect{fill:#eef3fb;stroke:#4a6fa5}text{fill:#1f2328;text-anchor:middle}text.f{fill:#8b949e}</style>",
        f'<rect width="{width:.0f}" height="{height:.0f}" style="fill:#fff;stroke:none"/>',
        f'<text x="{width / 2:.0f}" y="26" font-size="15">{escape(title)}: {escape(d.counts())}</text>',
    ]
    for n in range(len(d.floors)):
        out.append(f'<text class="f" x="{MARGIN}" y="{height - MARGIN - n * FLOOR - 8:.0f}">{n}</text>')
    for a, b in sorted(d.arrows - d.up) + sorted(d.up):
        kind = ' class="u"' if (a, b) in d.up else ""
        start, end = (y[a] + BOX, y[b]) if y[a] <= y[b] else (y[a], y[b] + BOX)
        bend = (end - start) / 2
        out.append(
            f'<path{kind} d="M{x[a]:.0f} {start:.0f}C{x[a]:.0f} {start + bend:.0f} {x[b]:.0f} {end - bend:.0f} '
            f'{x[b]:.0f} {end:.0f}"/>'
        )
    for r, at in x.items():
        w = width_of[r]
        out.append(f'<rect x="{at - w / 2:.0f}" y="{y[r]:.0f}" width="{w}" height="{BOX}" rx="5"/>')
        out.append(f'<text x="{at:.0f}" y="{y[r] + 18:.0f}">{escape(r)}</text>')
    return "\n".join([*out, "</svg>", ""])


def main(arguments: list[str] | None = None) -> int:
    """Draw, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--repo", type=Path, default=here, help="a checkout (this one)")
    parser.add_argument("--title", default="Imports in pgp_core")
    parser.add_argument("-o", "--output", type=Path, required=True, help="SVG file")
    args = parser.parse_args(arguments)
    package = args.repo / PACKAGE
    if not package.is_dir():
        parser.error(f"{args.repo} holds no {PACKAGE}")
    d = drawing(package)
    args.output.write_text(svg(d, args.title), encoding="utf-8")
    sys.stdout.write(d.counts() + "\n")
    for a, b in sorted(d.up):
        sys.stdout.write(f"up: {a} -> {b}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
