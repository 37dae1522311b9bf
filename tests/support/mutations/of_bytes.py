"""Files that are cut, lengthened, flipped here and there, or not at all what they were."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .files import BIN, Mutation, flipped, put, stem


def damaged_bytes(base: str, data: bytes, seed: int) -> Iterator[Mutation]:
    rng = random.Random(f"{seed}/{base}")
    head = 8 + int.from_bytes(data[:8], "little") if base != BIN else _pickle_end(data)
    cuts = [0, 5, 8, rng.randrange(9, head), rng.randrange(head, len(data)), len(data) // 2, len(data) - 1]
    for n in cuts:
        yield Mutation(stem(base, f"cut at {n}"), base, lambda p, n=n: put(p, data[:n]))
    yield Mutation(stem(base, "longer"), base, lambda p: put(p, data + b"\0" * 999))
    regions = {"head": (0, head, 10), "tail": (len(data) - 4000, len(data), 8 if base == BIN else 1)}
    regions["data"] = (head, len(data), 2)
    for region, (start, end, count) in regions.items():
        for i in range(count):
            at = [rng.randrange(start, end) for _ in range(1 + 3 * (i % 2))]
            flips = [(a, 1 << rng.randrange(8)) for a in at]
            yield Mutation(stem(base, f"flip {region} {i}"), base, lambda p, f=flips: put(p, flipped(data, f)))
    noise = rng.randbytes(4000)
    yield Mutation(stem(base, "noise"), base, lambda p: put(p, noise))
    yield Mutation(stem(base, "zeros"), base, lambda p: put(p, bytes(len(data) // 8)))


def _pickle_end(data: bytes) -> int:
    """Where the pickle in a file of ``torch.save`` ends: it stands first."""
    return data.index(b"PK", 4)
