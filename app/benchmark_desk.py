"""Benchmarks as the service offers them: methods measured on facts drawn from the bundled world, one edit at a time.

A comparison (:mod:`app.compare_desk`) asks about facts that somebody chose; this draws many, so that the rates mean
something. The engine is the same, :func:`evaluation.compare.compare`. The ledger and the fact store are left alone.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from app.compare_desk import CompareDesk, check_methods, comparison_view, method_rows
from app.engine import Engine
from app.views import Comparison
from knowledge.counterfactuals import counterfactuals
from knowledge.errors import InvalidInput

if TYPE_CHECKING:
    from evaluation.report import Comparison as Found
    from evaluation.report import Row

MOST_FACTS = 1_000


class BenchmarkDesk:
    """Runs benchmarks; one at a time is a matter of the caller."""

    def __init__(self, engine: Engine, comparing: CompareDesk) -> None:
        self._engine = engine
        self._comparing = comparing

    def run(
        self,
        count: int,
        methods: Sequence[str],
        *,
        together: bool = False,
        seed: int | None = None,
        progress: Callable[[float, str], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Comparison:
        """Measures the methods on ``count`` counterfactual facts of the world.

        Args:
            together: all facts in one edit, instead of each alone in an otherwise unedited model.
            seed: draws the facts; the same seed, the same facts. By default that of the settings.
            cancel: when set, the figures over the facts that are finished come back.

        Raises:
            PalimpsestError: an unknown method, a number of facts out of range, or a model that cannot be loaded.
        """
        if not 1 <= count <= MOST_FACTS:
            raise InvalidInput(f"A benchmark takes 1 to {MOST_FACTS:,} facts, not {count:,}.")
        if not methods:
            raise InvalidInput("Choose at least one method.")
        check_methods(methods, self._comparing.methods())
        from evaluation.compare import compare

        report, stop = progress or (lambda share, what: None), cancel or threading.Event()
        engine = self._engine
        chosen = engine.settings.seed if seed is None else seed
        edits = counterfactuals(engine.world, count, chosen)
        report(0.0, "loading the model")
        lm, rows = engine.lm, method_rows(engine, methods)
        batches = [edits] if together else [[edit] for edit in edits]
        found: list[Found] = []
        for number, batch in enumerate(batches):

            def inner(share: float, what: str, at: int = number) -> None:
                where = f"{len(edits)} facts at once" if together else f"fact {at + 1} of {len(batches)}"
                report((at + share) / len(batches), f"{where} · {what}")

            part = compare(lm, batch, rows, engine.world, progress=inner, cancel=stop, seed=chosen)
            if part.cancelled and (not together or not part.rows):  # half a fact would count for some methods only
                break
            found.append(part)
            if stop.is_set():
                break
        return comparison_view(merged(found)) if found else Comparison((), (), ())


def merged(parts: Sequence[Found]) -> Found:
    """Comparisons of the same methods on different edits as one: rates over all probes, mean seconds an edit."""
    from evaluation.report import Comparison as Found

    probes = tuple(probe for part in parts for probe in part.probes)
    names = dict.fromkeys(row.method for part in parts for row in part.rows)
    rows = tuple(_merged_row(name, [row for part in parts for row in part.rows if row.method == name], probes)
                 for name in names)  # fmt: skip
    edits = tuple(edit for part in parts for edit in part.edits)
    return Found(edits, rows, probes, cancelled=any(part.cancelled for part in parts))


def _merged_row(name: str, rows: Sequence[Row], probes: Any) -> Row:
    from evaluation.report import figures

    good = [row for row in rows if not row.error]
    if not good:
        return rows[0]
    texts = [cell.value for row in good if (cell := row.cells.get("fluency")) is not None and cell.value is not None]
    refused = len(rows) - len(good)
    title = f"{good[0].title.partition(':')[0]} (refused {refused} of {len(rows)})" if refused else good[0].title
    return figures(name, title, probes, texts, _mean(row.seconds for row in good),
                   _mean(row.answer_seconds for row in good))  # fmt: skip


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
