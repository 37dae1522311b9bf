"""Values that no one expects, and ways to put them into what was whole."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

#: Half of a surrogate pair, a null, an escape, text that turns, a name of a device, one that leads upwards.
TEXTS = (
    "", " ", "x", "\0", "a\0b", "\ud800", "\x1b[31m\x07", "\u202egnp", "a\nb", "x" * 10_000, "ü" * 300, "../../etc/x",
    "/dev/null", "CON", "~", "~nobody-at-all/x", "None", "true", "1e999", "9" * 30, "\u0663", "%s%n", "{0}", "$(x)",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 255, 256, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63),
    10**400, 0.0, -0.0, 0.5, 1e-320, 1e38, 1e300, -1e300, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


def deep(rng: random.Random) -> Any:
    """Lists in lists, as deep as some parser's stack and deeper than others'."""
    value: Any = 1
    for _ in range(rng.choice((3, 50, 900, 5000))):
        value = [value]
    return value


def value(rng: random.Random) -> Any:
    """Anything that JSON has."""
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind == 5:
        return [value(rng) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {rng.choice(TEXTS): value(rng) for _ in range(rng.randrange(3))}
    return rng.choice(([], {}, [[]], [1, "x", None], {"": 0}))


def _places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(data, dict):
        for key, item in data.items():
            found += _places(item, (*at, key))
    elif isinstance(data, list):
        for i, item in enumerate(data[:20]):
            found += _places(item, (*at, i))
    return found


def changed(rng: random.Random, data: Any, times: int = 0) -> Any:
    """JSON data with one to three places replaced, taken away, doubled, renamed or swapped."""
    data = copy.deepcopy(data)
    for _ in range(times or rng.randint(1, 3)):
        places = [p for p in _places(data) if p]
        if not places:
            return value(rng)
        *way, last = rng.choice(places)
        holder = data
        for step in way:
            holder = holder[step]
        how = rng.randrange(7)
        if how < 3:
            holder[last] = value(rng)
        elif how == 3:
            del holder[last]
        elif how == 4 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(last)
        elif how == 5 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[last : last + 1]) * rng.choice((1, 2, 500)))
        else:
            *other, end = rng.choice(places)
            source = data
            try:
                for step in other:
                    source = source[step]
                holder[last] = copy.deepcopy(source[end])
            except (KeyError, IndexError, TypeError):
                holder[last] = value(rng)
    return data


def text_of(rng: random.Random, data: Any) -> str:
    """JSON text of data, at times spoilt as text."""
    try:
        text = json.dumps(data, indent=rng.choice((None, 1)))
    except (ValueError, RecursionError):
        text = "{}"
    how = rng.randrange(10)
    at = rng.randrange(len(text) + 1)
    if how == 0:
        return text[:at]
    if how == 1:
        return (
            text[:at] + rng.choice(("9" * 5000, "[" * 100_000, '{"a":', "\x00", "NaN", ",", '"', "\\ud800")) + text[at:]
        )
    if how == 2:
        import re

        numbers = list(re.finditer(r"\d+", text))
        if numbers:
            m = rng.choice(numbers)
            odd = rng.choice(("9" * 5000, "1e999", "-1", "NaN", "Infinity", "-0", "1.5", '"7"', "\u0663"))
            return text[: m.start()] + odd + text[m.end() :]
    if how == 3:
        return "\ufeff" + text
    return text


def spoilt(rng: random.Random, data: bytes, places: range | None = None) -> bytes:
    """Bytes with some flipped, set, cut out, doubled or put in, or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            return bytes(changed)
        window = range(len(changed)) if places is None else range(places.start, min(places.stop, len(changed)))
        if not window:
            window = range(len(changed))
        at = rng.choice(window)
        how = rng.randrange(6)
        if how < 2:
            changed[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            changed[at : at + 4] = rng.choice(
                (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\x01\0\0\0")
            )
        elif how == 3:
            del changed[at : at + rng.choice((1, 2, 4, 64))]
        elif how == 4:
            changed[at:at] = changed[at : at + rng.choice((1, 8, 200))]
        else:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 16))))
    if rng.randrange(5) == 0:
        del changed[rng.randrange(len(changed) + 1) :]
    return bytes(changed)


def written(text: str) -> bytes:
    """As a file: halves of surrogate pairs become bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogatepass")
