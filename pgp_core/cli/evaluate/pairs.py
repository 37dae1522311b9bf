"""``pgp-diffsr eval pairs``: restorers and finished results, measured on pairs of LQ and HQ pictures."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import Cancelled, PGPError
from .. import model_options, sampling_options
from ..device import choose_device
from ..output import say
from . import rows, shared

if TYPE_CHECKING:
    from ...evaluation.benchmark.kept import Kept
    from ...evaluation.benchmark.measuring import Measuring
    from ...evaluation.benchmark.results import Pair, Results, Row

BICUBIC = "bicubic"


def add_to(tables: Any) -> None:
    """Register the command."""
    parser = tables.add_parser(
        "pairs",
        help="models and finished results on your own pairs of LQ and HQ pictures",
        description="Restores every LQ picture with each --model, or takes the finished results in --sr, and measures "
        "them against the HQ pictures. Pictures are matched by name; endings such as _LR4, _HR and x4 do not count. "
        "Bicubic is always the first row; without --model and --sr the second is nano. What a model makes goes to "
        "DIR/pictures, and a run that was ended goes on there.",
    )
    parser.add_argument("--lq", type=Path, required=True, metavar="DIR", help="LQ pictures")
    parser.add_argument("--hq", type=Path, required=True, metavar="DIR", help="HQ pictures, of the size of the results")
    shared.add_output(parser)
    rows.add_to(parser)
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Measure; a picture that fails is named and the rest goes on."""
    from ...evaluation.benchmark import matching
    from ...evaluation.benchmark.measuring import Measuring
    from ...evaluation.benchmark.results import Results, Row

    metrics = shared.metrics(args, ("hq", "lq", None))
    asked = rows.asked(args, [BICUBIC])
    lq, hq = matching.pictures_in(args.lq), matching.pictures_in(args.hq)
    matched = matching.match_pairs(lq, hq)
    results = Results("pairs", matched.pairs, [Row(BICUBIC, "bicubic")], metrics, unmatched=matched.unmatched)
    shared.unmatched(matched.unmatched)
    failed = {**lq.failed, **hq.failed}
    for want in asked:
        settings: dict[str, Any] = {}
        files: dict[str, Path] = {}
        if want.folder is not None:
            there = matching.pictures_in(want.folder)
            files, lines = matching.match_results(matched.pairs, there)
            settings = {"folder": str(want.folder)}
            results.unmatched = [*results.unmatched, *lines]
            shared.unmatched(lines)
            failed |= there.failed
        results.rows.append(Row(want.name, want.kind, settings, files))
    for line in failed.values():
        say(f"error: {line}")
    models = _find(asked)
    results.made = shared.made(args)
    jobs = sum(len(row.files) if row.kind == "folder" else len(matched.pairs) for row in results.rows)
    with (
        shared.folder(args) as folder,
        shared.Bar(jobs) as bar,
        Measuring(results, shared.workers(args, jobs), bar.say, bar.tick) as measuring,
    ):
        # Libraries are told before the first model is loaded that nothing is fetched.
        networks = shared.load_networks(args, results) if args.download else None
        kept = _folders(args, results, models, folder)
        _enlarge(results, measuring, kept)
        for row in results.rows:
            if row.kind == "folder":
                for pair in results.pairs:
                    if pair.name in row.files:
                        measuring.picture(row, pair, row.files[pair.name])
        try:
            for row, model in zip(results.rows[1:], models, strict=True):
                if model is not None:
                    _Model(*model, args.device, row, kept[row.name], measuring, bar).run(results.pairs)
        except (KeyboardInterrupt, Cancelled):
            _say_kept(args, kept)
            raise
        measuring.finish()
        bar.bar.close()
        shared.networks(results, measuring, shared.load_networks(args, results) if networks is None else networks)
        return shared.finish(args, results, measuring, len(failed))


def _find(asked: list[rows.Asked]) -> list[tuple[argparse.Namespace, Any] | None]:
    """Look at the models' files, all before the first is loaded."""
    found: list[tuple[argparse.Namespace, Any] | None] = []
    for row in asked:
        if row.args is None:
            found.append(None)
            continue
        with model_options.usage(row.args):
            model = model_options.find(model_options.given(row.args, sampling_options.one_step(row.args)))
        if model.needs:
            raise PGPError(f"{row.name} needs {'; '.join(model.needs)}")
        found.append((row.args, model))
    return found


def _folders(
    args: argparse.Namespace, results: Results, models: list[tuple[argparse.Namespace, Any] | None], folder: Path
) -> dict[str, Kept]:
    """Where pictures are made, each tried before anything slow begins."""
    from ...evaluation.benchmark.kept import Kept, file_names

    names = file_names([row.name for row in results.rows if row.kind != "folder"])
    found = {}
    for row, model in zip(results.rows, [None, *models], strict=True):
        if row.kind == "folder":
            continue
        row.settings = {"method": "Pillow's bicubic"} if model is None else _settings(*model)
        found[row.name] = Kept.open(folder / "pictures" / names[row.name], row.settings, args.overwrite)
    return found


def _settings(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What a model's pictures follow from, as far as is known before it is loaded."""
    from ... import __version__
    from ...evaluation.benchmark.making import digests

    options = {k: _plain(getattr(args, k)) for k in rows.defaults() if k != "name"}
    return {
        "model": model.what,
        "options": {k: v for k, v in options.items() if v is not None},
        "sha256": digests(model.given),
        "device": choose_device(args.device),
        "pgp-diffsr": __version__,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _enlarge(results: Results, measuring: Measuring, kept: dict[str, Kept]) -> None:
    row = results.rows[0]
    for pair in results.pairs:
        measuring.picture(row, pair, kept[row.name].path(pair.name), bicubic=True)


def _say_kept(args: argparse.Namespace, kept: dict[str, Kept]) -> None:
    count = sum(len(k.seconds) for k in kept.values())
    if args.output is not None and count:
        say(f"{count} pictures are kept in {args.output / 'pictures'}: the same command goes on from there")


class _Model:
    """One model's row."""

    def __init__(
        self,
        args: argparse.Namespace,
        found: Any,
        device: str,
        row: Row,
        kept: Kept,
        measuring: Measuring,
        bar: shared.Bar,
    ):
        self.args, self.found, self.device = args, found, device
        self.row, self.kept, self.measuring, self.bar = row, kept, measuring, bar

    def run(self, pairs: list[Pair]) -> None:
        """Make what is not there, and have all measured."""
        todo = [pair for pair in pairs if not self._has(pair)]
        there = len(pairs) - len(todo)
        if there:
            self.bar.say(
                f"{self.row.name}: {there} of {len(pairs)} pictures are there already (--overwrite makes them again)"
            )
        for pair in pairs:
            if pair not in todo:
                self._measure(pair)
        if todo:
            self._make(todo)
        self.row.settings |= self.kept.about

    def _has(self, pair: Pair) -> bool:
        assert pair.lq is not None
        try:
            return not self.args.overwrite and self.kept.has(pair.name, pair.lq)
        except OSError:
            return False

    def _make(self, todo: list[Pair]) -> None:
        from tqdm import tqdm

        from ...batch.failures import give_back_memory, lacks_memory, one_picture
        from ...errors import PictureError
        from ...evaluation.benchmark.making import restored
        from ...visible import visible

        restorer = model_options.load(self.found, choose_device(self.device))
        recipe, options = sampling_options.decided(restorer, self.args)
        self.kept.about = {"name": restorer.name, "recipe": asdict(recipe)}
        for pair in todo:
            assert pair.lq is not None
            out_of_memory = False
            title = visible(f"{self.row.name}, {pair.name}")
            with tqdm(total=recipe.steps, desc=title, unit="step", disable=None, leave=False, position=1) as steps:

                def progress(done: int, total: int, steps: Any = steps) -> None:
                    steps.update(done - steps.n)
                    self.measuring.workers.pump()

                try:
                    with one_picture(pair.lq):
                        restored(restorer, pair, self.kept, recipe, options, progress)
                except PictureError as e:
                    out_of_memory = lacks_memory(e.__cause__) if e.__cause__ else False
                    self.measuring.fail(self.row, pair.name, str(e).removeprefix(str(PictureError(f"{pair.lq}: "))))
                else:
                    self._measure(pair)
            if out_of_memory:
                give_back_memory()
        del restorer
        give_back_memory()

    def _measure(self, pair: Pair) -> None:
        seconds = self.kept.seconds.get(pair.name)
        if seconds is not None:
            self.row.seconds[pair.name] = seconds
        self.measuring.picture(self.row, pair, self.kept.path(pair.name))
