"""Comparisons as the service offers them: facts by number or sentence, methods by name. The ledger is left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.fact_desk import FactDesk
from app.views import Comparison, MethodRow, MethodView, MetricCell, ProbeAnswer, ProbeLine, ProbeRow
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from evaluation.methods import Method
    from evaluation.report import Cell, Row
    from evaluation.report import Comparison as Found
    from knowledge.probes import Probe, ProbeSet


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
        probes: Sequence[ProbeLine] | None = None,
    ) -> Comparison:
        """Makes the facts' edits by every method and asks all the same probes.

        Args:
            facts: numbers of stored facts, or sentences.
            cancel: when set, what is finished by then comes back.
            probes: what is asked, instead of the probes made out of the relations; see :meth:`probes`.

        Raises:
            PalimpsestError: an unknown method, a fact that does not exist or is not understood, too many facts.
        """
        from evaluation.compare import compare

        self._check_facts(facts)
        check_methods(methods, self.methods())
        edits = [self._edit(fact) for fact in facts]
        asked = None if probes is None else self._own_probes(edits, probes)
        report = progress or (lambda share, what: None)
        report(0.0, "loading the model")
        lm, engine = self._engine.lm, self._engine
        found = compare(
            lm,
            edits,
            method_rows(engine, methods),
            engine.world,
            progress=report,
            cancel=cancel,
            seed=engine.settings.seed,
            probes=None if asked is None else lambda edit: asked[id(edit)],
        )
        return comparison_view(found)

    def probes(self, facts: Sequence[int | str]) -> tuple[ProbeLine, ...]:
        """The probes that :meth:`run` would ask about the facts, to be changed and given back. Loads no model.

        Raises:
            PalimpsestError: a fact that does not exist or is not understood, too many facts.
        """
        self._check_facts(facts)
        return tuple(
            ProbeLine(place, probe.kind, probe.text, probe.expected or "")
            for place, fact in enumerate(facts)
            for probe in self._made(self._edit(fact))
        )

    def _made(self, edit: Edit) -> ProbeSet:
        from knowledge.probes import probes_for

        return probes_for(edit, self._engine.world, seed=self._engine.settings.seed)

    def _own_probes(self, edits: Sequence[Edit], lines: Sequence[ProbeLine]) -> dict[int, list[Probe]]:
        """The probes of each edit, by its ``id``. What was made out of the relation keeps all that is known of it."""
        if not lines:
            raise InvalidInput("There is no probe to ask. Write at least one, or go back to those made by the program.")
        made: list[dict[tuple[str, str], Probe]] = [
            {(probe.kind, probe.text): probe for probe in self._made(edit)} for edit in edits
        ]
        found: dict[int, list[Probe]] = {id(edit): [] for edit in edits}
        for line in lines:
            if not 0 <= line.fact < len(edits):
                raise InvalidInput(f"{line.prompt!r} belongs to fact {line.fact + 1}; there are {len(edits)}.")
            found[id(edits[line.fact])].append(_probe(line, made[line.fact].get((line.kind, line.prompt))))
        return found

    def _check_facts(self, facts: Sequence[int | str]) -> None:
        limit = self._engine.settings.max_compare_facts
        if not facts:
            raise InvalidInput("Choose or write at least one fact to compare on.")
        if len(facts) > limit:
            raise InvalidInput(f"{len(facts)} facts are too many for one comparison; at most {limit}. Choose fewer.")

    def _edit(self, fact: int | str) -> Edit:
        if isinstance(fact, str):
            return self._facts.edit_of(fact)
        self._facts.get(fact)  # of this namespace, or an error
        store = self._engine.store
        return store.to_edit(store.get(fact))


def check_methods(methods: Sequence[str], known: Sequence[MethodView]) -> None:
    """Raises :class:`UnknownName` for a method that there is not."""
    names = [item.name for item in known]
    for name in methods:
        if name not in names:
            raise UnknownName("method", name, names)


def method_rows(engine: Engine, methods: Sequence[str]) -> list[Method]:
    """The methods for :func:`evaluation.compare.compare`, with the encoder and the moments of this program."""
    from evaluation.methods import available

    shared: dict[str, Any] = {
        "embedder": engine.embedder,
        "moments": engine.moments,
        "threshold": engine.settings.threshold,
    }
    found = available(**shared)
    return [found[name] for name in methods]


def _probe(line: ProbeLine, made: Probe | None) -> Probe:
    """A line as a probe; a made one is kept as it is, or with another expected answer."""
    from knowledge.probes import KINDS, Probe, metric_of

    expected = line.expected.strip() or None
    if made is not None:
        if (made.expected or None) == expected:
            return made
        return replace(made, expected=expected, aliases=(), source="user")
    if line.kind not in KINDS:
        raise UnknownName("kind of probe", line.kind, KINDS)
    changes = metric_of(line.kind) != "locality"
    if changes and expected is None:
        raise InvalidInput(f"Give the right answer to {line.prompt!r}; only what must not change does without.")
    return Probe(line.kind, line.prompt, None, expected, must_change=changes, source="user")


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
