"""Comparisons as the service offers them: facts by number or sentence, methods by name. The ledger is left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.fact_desk import FactDesk
from app.views import Comparison, MethodRow, MethodView, MetricCell, ProbeAnswer, ProbeRow
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from evaluation.report import Cell, Row
    from evaluation.report import Comparison as Found


class CompareDesk:
    """Runs comparisons; one at a time is a matter of the caller."""

    def __init__(self, engine: Engine, facts: FactDesk) -> None:
        self._engine = engine
        self._facts = facts

    def methods(self) -> list[MethodView]:
        """What can be compared: the unedited model, the strategies of memory, the weight editors. Loads no model."""
        from editors.registry import available as editors
        from memory.registry import available as strategies

        rows = [MethodView("base", "Unedited model", "", "the model as it was loaded")]
        rows += [MethodView(item.name, item.title.partition(":")[0], item.paper, item.title) for item in strategies()]
        rows += [MethodView(info.name, info.title, info.paper, info.summary) for info in editors().values()]
        return rows

    def usual(self) -> list[str]:
        """The methods of the settings that there are; what is compared where nothing is chosen."""
        names = [item.name for item in self.methods()]
        return [name for name in self._engine.settings.compare_methods.replace(" ", "").split(",") if name in names]

    def run(
        self,
        facts: Sequence[int | str],
        methods: Sequence[str],
        *,
        progress: Callable[[float, str], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Comparison:
        """Makes the facts' edits by every method and asks all the same probes.

        Args:
            facts: numbers of stored facts, or sentences.
            cancel: when set, what is finished by then comes back.

        Raises:
            PalimpsestError: an unknown method, a fact that does not exist or is not understood, too many facts.
        """
        from evaluation.compare import compare
        from evaluation.methods import available

        limit = self._engine.settings.max_compare_facts
        if not facts:
            raise InvalidInput("Choose or write at least one fact to compare on.")
        if len(facts) > limit:
            raise InvalidInput(f"{len(facts)} facts are too many for one comparison; at most {limit}. Choose fewer.")
        known = [item.name for item in self.methods()]
        for name in methods:
            if name not in known:
                raise UnknownName("method", name, known)
        edits = [self._edit(fact) for fact in facts]
        report = progress or (lambda share, what: None)
        report(0.0, "loading the model")
        lm, engine = self._engine.lm, self._engine
        shared: dict[str, Any] = {
            "embedder": engine.embedder,
            "moments": engine.moments,
            "threshold": engine.settings.threshold,
        }
        rows = available(**shared)
        found = compare(
            lm,
            edits,
            [rows[name] for name in methods],
            engine.world,
            progress=report,
            cancel=cancel,
            seed=engine.settings.seed,
        )
        return comparison_view(found)

    def _edit(self, fact: int | str) -> Edit:
        if isinstance(fact, str):
            return self._facts.edit_of(fact)
        self._facts.get(fact)  # of this namespace, or an error
        store = self._engine.store
        return store.to_edit(store.get(fact))


def comparison_view(found: Found) -> Comparison:
    """A comparison as the outside sees it."""
    probes = tuple(
        ProbeRow(
            item.fact,
            item.probe.kind,
            item.probe.text,
            item.expected,
            {name: ProbeAnswer(answer.answer, answer.right) for name, answer in item.answers.items()},
        )
        for item in found.probes
    )
    return Comparison(found.facts, found.metrics, tuple(map(_row, found.rows)), probes)


def _row(row: Row) -> MethodRow:
    cells = {name: _cell(cell) for name, cell in row.cells.items()}
    return MethodRow(row.method, row.title.partition(":")[0], cells, row.seconds, row.error)


def _cell(cell: Cell) -> MetricCell:
    if not cell.n or cell.value is None or cell.value != cell.value:  # nothing was measured
        return MetricCell(None)
    return MetricCell(cell.value, cell.low, cell.high, cell.n)
