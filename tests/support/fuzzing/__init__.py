"""Hostile and damaged input of every kind that this program reads, by structure: one case from one generator.

A target is ``target(rng, folder, prepared)``: it writes something into an empty folder, lets the program read it, and
may raise nothing but :class:`pgp_core.errors.PGPError`; :func:`run_case` judges that. ``rng`` is a ``random.Random``:
hypothesis's own in the tests (which makes what fails smaller), a seeded one in ``reproduce/fuzz.py``.
"""

from __future__ import annotations

from .judge import TARGETS, Failure, Prepared, run_case

__all__ = ["TARGETS", "Failure", "Prepared", "run_case"]
