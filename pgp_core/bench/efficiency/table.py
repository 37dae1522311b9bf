"""The measurement as tables for people: in a terminal, and as Markdown."""

from __future__ import annotations

from ...evaluation.summary import markdown_table
from ...restorers.restorer import PARTS
from ...visible import visible
from .figures import Efficiency, RowFigures, SizeFigures

_HEADS = {"unet": "UNet", "vae": "VAE", "text_encoder": "text encoders", "guidance": "guidance"}
_NONE = "-"


def notes(found: Efficiency) -> list[str]:
    """What the figures are, a line each."""
    machine = f"{found.machine['device_name']} ({found.machine['device']}"
    machine += f", {found.machine['threads']} threads)" if found.machine["threads"] else ")"
    said = [
        f"{machine}, PyTorch {found.machine['torch']}; median of {found.runs}, warm, of all models in turn.",
        "G MACs: multiply-accumulates of a picture's whole way, of convolutions and linear layers; behind + those of "
        "attention's own products. Text encoders are apart, as prompts are encoded once.",
        "Seconds: enlarging, restoring and colours of a picture; files are neither read nor written.",
    ]
    if found.machine["device"].startswith("cuda"):
        said.append("Memory: the peak of what PyTorch gave out, weights included.")
    else:
        said.append("Memory: the process's peak above what it held before the model was read, weights included.")
    for row in found.rows:
        if row.alone:
            said.append(f"{visible(row.name)} was measured after the others: there was no room for it beside them.")
        if row.prompts:
            g = row.prompt_macs
            said.append(
                f"{visible(row.name)} encodes {row.prompts} prompt{'s' if row.prompts > 1 else ''}, "
                f"{giga(g.dense)} + {giga(g.attention)} G MACs each."
            )
        elif row.error is None and "text_encoder" not in row.parameters:
            said.append(f"{visible(row.name)} has saved conditioning: no text encoder is needed.")
    return said


def parameters(found: Efficiency) -> tuple[list[str], list[list[str]]]:
    """Head and rows: parameters of each part in millions."""
    head = ["M parameters", *(_HEADS[p] for p in PARTS), "all", "ratio"]
    return head, [_parameters(found, row) for row in found.rows]


def of_size(found: Efficiency, size: int) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a size of the result."""
    head = [f"{size}x{size}", "UNet calls", "G MACs", "ratio", "seconds", "min to max", "ratio", "peak GB", "ratio"]
    return head, [_of_size(found, row, size) for row in found.rows]


def markdown(found: Efficiency) -> str:
    """All as Markdown."""
    tables = [parameters(found), *(of_size(found, size) for size in found.sizes)]
    texts = [markdown_table(head, [_filled(row, len(head)) for row in rows]) for head, rows in tables]
    return "\n".join(["# Efficiency\n", *texts, *(f"- {_escaped(note)}" for note in notes(found))]) + "\n"


def _filled(row: list[str], columns: int) -> list[str]:
    return [_escaped(c) for c in row] + [""] * (columns - len(row))


def lines(found: Efficiency) -> list[str]:
    """All as lines for a terminal."""
    shown: list[str] = []
    for head, rows in (parameters(found), *(of_size(found, size) for size in found.sizes)):
        cells = [[visible(c) for c in row] for row in (head, *rows)]
        # A row that failed says why behind its name, which widens no column.
        widths = [max((len(row[i]) for row in cells if len(row) > max(i, 2)), default=0) for i in range(len(head))]
        widths[0] = max(len(row[0]) for row in cells)
        for row in cells:
            figures = row[1:] if len(row) == 2 else [f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True)]
            shown.append("  ".join([f"{row[0]:<{widths[0]}}", *figures]))
        shown.append("")
    return [*shown, *notes(found)]


def _parameters(found: Efficiency, row: RowFigures) -> list[str]:
    if row.error is not None:
        return [row.name, row.error]
    own = [f"{row.parameters[p] / 1e6:.2f}" if p in row.parameters else _NONE for p in PARTS]
    ratio = found.ratios(row, 0)["parameters"]
    return [row.name, *own, f"{row.total / 1e6:.2f}", _ratio(ratio)]


def _of_size(found: Efficiency, row: RowFigures, size: int) -> list[str]:
    here = row.sizes.get(size, SizeFigures(error=row.error or "not measured"))
    if here.error is not None:
        return [row.name, here.error]
    ratios, macs = found.ratios(row, size), here.macs
    median = here.median
    return [
        row.name,
        str(here.counted.calls.get("unet", 0)),
        f"{giga(macs.dense)} + {giga(macs.attention)}",
        _ratio(ratios["macs"]),
        _NONE if median is None else _seconds(median),
        f"{_seconds(min(here.seconds))} to {_seconds(max(here.seconds))}" if here.seconds else _NONE,
        _ratio(ratios["seconds"]),
        f"{here.peak_memory_bytes / 1e9:.2f}" if here.peak_memory_bytes else _NONE,
        _ratio(ratios["peak_memory"]),
    ]


def giga(count: int) -> str:
    """Billions, with four digits that count."""
    value = count / 1e9
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3g}"


def _escaped(text: str) -> str:
    text = visible(text)
    for character in "\\|*`<[":
        text = text.replace(character, "\\" + character)
    return text
