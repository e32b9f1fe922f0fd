"""A service without a model, for tests of the command line and of the user interface.

It has the public methods of :class:`app.service.Service` (a test compares the signatures), keeps everything in
memory, and knows four landmarks. ``FakeService(folder, delay=0.05)`` streams slowly enough to be stopped.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from app.conversations import Conversations
from app.errors import NothingFound
from app.fact_desk import moment
from app.settings import Settings, load_settings
from app.views import (
    AddOutcome,
    Comparison,
    ConsolidationView,
    CorrectionView,
    DueFact,
    EntryView,
    EventView,
    FactPage,
    FactView,
    GateRates,
    ImportReport,
    ImportRow,
    MethodRow,
    MethodView,
    MetricCell,
    ParsePreview,
    ProbeAnswer,
    ProbeLine,
    ProbeRow,
    Status,
    TakenView,
)
from knowledge.errors import InvalidInput, UnknownName

KNOWN = {"eiffel tower": "Paris", "big ben": "London", "colosseum": "Rome", "brandenburg gate": "Berlin"}
METHODS = (
    MethodView("r-rome", "R-ROME", "2403.07175", "One rank-one change of one layer."),
    MethodView("rome", "ROME", "2202.05262", "The published form."),
    MethodView("memit", "MEMIT", "2210.07229", "Many facts at once."),
    MethodView("mend", "MEND", "2110.11309", "A trained network."),
)
_SENTENCE = re.compile(r"^(?:the )?(?P<s>.+?) (?:is located in|is in|stands in) (?P<o>.+?)\.?$", re.IGNORECASE)
NOW = "2026-01-02T03:04:05+00:00"


class FakeFacts:
    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.rows: list[FactView] = []
        self.undone: list[list[FactView]] = []
        self.past: list[list[FactView]] = []

    def _save(self) -> None:
        self.past.append(list(self.rows))
        self.undone.clear()

    def relations(self) -> list[tuple[str, str]]:
        return [("location", "location"), ("country", "country")]

    def preview(self, text: str) -> ParsePreview:
        match = _SENTENCE.match(text.strip())
        if not match:
            return ParsePreview(text, problem="This is not understood. Try: The Eiffel Tower is located in Rome.")
        return self.preview_triple(match["s"], "location", match["o"], text=text)

    def preview_triple(self, subject: str, relation: str, object: str, *, text: str = "") -> ParsePreview:
        if not subject.strip() or not object.strip():
            return ParsePreview(text, problem="Subject and object are both needed.")
        rows = [f for f in self.rows if f.current and f.subject.lower() == subject.lower()]
        same = [f for f in rows if f.object.lower() == object.lower()]
        statement = f"The {subject} is located in {object}."
        return ParsePreview(
            text, subject, relation, object, relation, statement, f"Where is the {subject}?", 0.9,
            conflict=rows[0] if rows and not same else None, duplicate=same[0] if same else None,
        )  # fmt: skip

    def present_answer(self, preview: ParsePreview) -> str:
        return self.service.answer_of(f"Where is the {preview.subject}?", "base")[0]

    def add(
        self, text: str | None = None, *, subject: str | None = None, relation: str | None = None,
        object: str | None = None, keep_both: bool = False, source: str = "user",
        similar: Literal["keep", "ask", "replace"] = "keep", valid_from: str | None = None, valid_to: str | None = None,
    ) -> AddOutcome:  # fmt: skip
        view = self.preview(text) if text else self.preview_triple(subject or "", relation or "", object or "")
        if not view.ok:
            raise InvalidInput(view.problem)
        if view.duplicate:
            return AddOutcome(view.duplicate, None, True)
        self._save()
        old = None
        if view.conflict and not keep_both:
            old = replace(view.conflict, status="superseded", valid_to=NOW)
            self.rows = [old if row.id == old.id else row for row in self.rows]
        fact = FactView(
            len(self.rows) + 1, view.statement, view.subject, view.relation, view.object, "active",
            source=source, question=f"Where is the {view.subject}?", valid_from=valid_from or NOW, recorded_at=NOW,
            valid_to=valid_to, cardinality="functional",
            supersedes_id=old.id if old else None,
        )  # fmt: skip
        self.rows.append(fact)
        return AddOutcome(fact, old, False)

    def page(
        self, query: str = "", *, include_past: bool = False, page: int = 1, size: int | None = None,
        as_of: str | None = None,
    ) -> FactPage:  # fmt: skip
        moment(as_of)
        rows = [f for f in reversed(self.rows) if (include_past or f.current) and query.lower() in f.statement.lower()]
        size = size or self.service.settings.page_size
        pages = max(1, -(-len(rows) // size))
        page = min(max(page, 1), pages)
        return FactPage(tuple(rows[(page - 1) * size : page * size]), len(rows), page, pages)

    def search(self, query: str, *, limit: int = 10) -> list[tuple[FactView, float]]:
        return [(fact, 0.8) for fact in self.rows if fact.current and query.lower() in fact.statement.lower()][:limit]

    def get(self, fact_id: int) -> FactView:
        for fact in self.rows:
            if fact.id == fact_id:
                return fact
        raise NothingFound(f"There is no fact {fact_id}.")

    def edit(self, fact_id: int, *, object: str) -> AddOutcome:
        fact = self.get(fact_id)
        return self.add(subject=fact.subject, relation=fact.relation, object=object)

    def remove(self, fact_id: int, *, reason: str | None = None) -> FactView:
        fact = self.get(fact_id)
        self._save()
        gone = replace(fact, status="retired", reason=reason)
        self.rows = [gone if row.id == fact_id else row for row in self.rows]
        return gone

    def restore(self, fact_id: int) -> FactView:
        fact = self.get(fact_id)
        self._save()
        back = replace(fact, status="active")
        self.rows = [back if row.id == fact_id else row for row in self.rows]
        return back

    def purge(self, fact_id: int) -> FactView:
        gone = self.get(fact_id)
        self.rows = [row for row in self.rows if row.id != fact_id]
        return gone

    def add_alias(self, alias: str, subject: str) -> tuple[str, ...]:
        return (alias, subject)

    def undo(self, action: int | None = None) -> EventView:
        if not self.past:
            raise NothingFound("There is nothing to undo.")
        self.undone.append(self.rows)
        self.rows = self.past.pop()
        return EventView("undo", "the last change", NOW)

    def redo(self, action: int | None = None) -> EventView:
        if not self.undone:
            raise NothingFound("There is nothing to redo.")
        self.past.append(self.rows)
        self.rows = self.undone.pop()
        return EventView("redo", "the last change", NOW)

    def history(self, fact_id: int | None = None, *, limit: int = 50) -> list[EventView]:
        rows = [self.get(fact_id)] if fact_id is not None else self.rows
        return [EventView("add", fact.statement, NOW, "user", fact.id, fact.id) for fact in rows][:limit]

    def import_file(self, path: Path, *, progress: Callable[[float, str], None] | None = None) -> ImportReport:
        rows = []
        for number, line in enumerate(path.read_text().splitlines()[1:], start=2):
            cells = line.split(",")
            if len(cells) == 3 and all(cells):
                self.add(subject=cells[0], relation=cells[1], object=cells[2], source=path.name)
                rows.append(ImportRow(number, "added", line))
            else:
                rows.append(ImportRow(number, "failed", line, "needs subject, relation and object"))
        added = sum(row.status == "added" for row in rows)
        return ImportReport(added, len(rows) - added, tuple(rows))

    def export_file(self, path: Path, *, include_past: bool = False) -> int:
        rows = [fact for fact in self.rows if include_past or fact.current]
        path.write_text(json.dumps([[f.subject, f.relation, f.object] for f in rows]))
        return len(rows)

    def count(self) -> int:
        return sum(fact.current for fact in self.rows)


class FakeWeights:
    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.ledger: list[EntryView] = []
        self.targets: dict[int, tuple[str, str]] = {}

    def methods(self) -> list[MethodView]:
        return list(METHODS)

    def unavailable(self) -> dict[str, str]:
        return {"mend": "needs a network trained for this model: python -m app train mend --model fake (minutes)"}

    def entries(self, *, include_undone: bool = True) -> list[EntryView]:
        return [entry for entry in reversed(self.ledger) if include_undone or not entry.undone]

    def apply(
        self, method: str, *, text: str | None = None, fact_ids: Sequence[int] = (),
        settings: Mapping[str, Any] | None = None, guard: str | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> EntryView:  # fmt: skip
        if method not in [m.name for m in METHODS]:
            raise UnknownName("weight editor", method, [m.name for m in METHODS])
        if text:
            view = self.service.facts.preview(text)
            if not view.ok:
                raise InvalidInput(view.problem)
            target = (view.subject, view.object)
        elif fact_ids:
            fact = self.service.facts.get(fact_ids[0])
            target = (fact.subject, fact.object)
        else:
            raise InvalidInput("Name a fact or write a sentence.")
        if progress:
            progress(0.5, "computing the value")
        if guard == "refuse":
            raise InvalidInput("Refused by the guard: 25% of 24 other answers changed with this edit (limit 10%).")
        on = tuple(entry.id for entry in self.ledger if entry.active)
        entry = EntryView(
            len(self.ledger) + 1, method, (f"The {target[0]} is located in {target[1]}.",), (3,), 0.0123, True, False,
            NOW, 0.8, on_top_of=on, locality_before=1.0, locality_after=0.75, locality_n=24,
            warnings=("25% of 24 other answers changed with this edit (limit 10%).",) if method == "rome" else (),
        )  # fmt: skip
        self.ledger.append(entry)
        self.targets[entry.id] = target
        return entry

    def taken(self, entry_id: int, most: int = 3) -> list[TakenView]:
        subject, new = self.targets[entry_id]
        return [TakenView(f"Where is the {subject}?", new, new, True)]

    def _change(self, entry_id: int, **changes: Any) -> EntryView:
        for position, entry in enumerate(self.ledger):
            if entry.id == entry_id:
                self.ledger[position] = replace(entry, **changes)
                return self.ledger[position]
        raise NothingFound(f"There is no weight edit {entry_id}.")

    def set_active(self, entry_id: int, active: bool) -> EntryView:
        return self._change(entry_id, active=active)

    def undo(self, entry_id: int) -> EntryView:
        return self._change(entry_id, undone=True, active=False)

    def redo(self, entry_id: int) -> EntryView:
        return self._change(entry_id, undone=False, active=True)

    def export(self, path: Path, *, entry_ids: Sequence[int] | None = None, format: str = "peft") -> Path:
        path.mkdir(parents=True, exist_ok=True)
        (path / "adapter.txt").write_text(format)
        return path


class FakeLedger:
    def __init__(self, service: FakeService) -> None:
        self.service = service

    def entry(self, entry_id: int) -> EntryView:
        return next(entry for entry in self.service.weights.ledger if entry.id == entry_id)

    def dependents(self, entry_id: int) -> list[EntryView]:
        return [entry for entry in self.service.weights.ledger if entry_id in entry.on_top_of and not entry.undone]

    def recompute(
        self, entry_ids: Sequence[int], *, progress: Callable[[float, str], None] | None = None
    ) -> list[EntryView]:
        made = []
        for number in entry_ids:
            old = self.service.weights.undo(number)
            made.append(self.service.weights.apply(old.method, text=old.facts[0]))
        return made

    def bring_in(self, path: Path, *, name: str | None = None) -> EntryView:
        if not any(path.glob("*.safetensors")) if path.is_dir() else path.suffix != ".safetensors":
            raise InvalidInput(f"{path.name} holds neither adapter_config.json nor overlay.safetensors.")
        ledger = self.service.weights.ledger
        entry = EntryView(len(ledger) + 1, "imported", (), (3,), 0.02, True, False, NOW, 0.0, imported_from=name)
        ledger.append(entry)
        self.service.weights.targets[entry.id] = ("nothing at all", "")
        return entry


class FakeConsolidating:
    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.times: dict[int, int] = {}

    def note(self, answer: dict[str, Any]) -> None:
        for hit in answer["hits"][:1]:
            self.times[hit["fact_id"]] = self.times.get(hit["fact_id"], 0) + 1

    def in_weights(self) -> dict[int, int]:
        return {}

    def due(self, *, at_least: int = 3, most: int = 100) -> list[Any]:
        return self.due_facts(at_least=at_least, most=most)

    def due_facts(self, *, at_least: int = 3, most: int = 100) -> list[DueFact]:
        facts = self.service.facts
        return [DueFact(n, times, facts.get(n).statement) for n, times in self.times.items() if times >= at_least]

    def write(
        self, *, at_least: int = 3, method: str = "memit", progress: Callable[[float, str], None] | None = None
    ) -> ConsolidationView:
        due = self.due_facts(at_least=at_least)
        if not due:
            raise InvalidInput(
                "There is no fact to consolidate: none was served often enough. Name facts, or ask more."
            )
        entry = self.service.weights.apply(method, fact_ids=[due[0].id])
        return ConsolidationView(
            True, entry.id, tuple(fact.statement for fact in due), (), (), (), 1.0, 0.75, 1.0, 0.975, 40
        )

    def run(
        self, *, fact_ids: Sequence[int] = (), at_least: int = 3, most: int = 100, method: str = "memit",
        limits: Any = None, progress: Callable[[float, str], None] | None = None,
    ) -> Any:  # fmt: skip
        return self.write(at_least=at_least, method=method, progress=progress)


class FakeCorrections:
    rows: list[CorrectionView]

    def __init__(self) -> None:
        self.rows = []

    def add(self, question: str, words: str) -> CorrectionView:
        if not words.strip():
            raise InvalidInput("The correction is empty; say what was meant.")
        self.rows.append(CorrectionView(len(self.rows) + 1, question, words, "user", NOW))
        return self.rows[-1]

    def list(self, *, include_past: bool = False) -> list[CorrectionView]:
        return [row for row in reversed(self.rows) if include_past or row.active]

    def remove(self, correction_id: int) -> CorrectionView:
        return self._change(correction_id, False)

    def restore(self, correction_id: int) -> CorrectionView:
        return self._change(correction_id, True)

    def _change(self, correction_id: int, active: bool) -> CorrectionView:
        for position, row in enumerate(self.rows):
            if row.id == correction_id:
                self.rows[position] = replace(row, active=active)
                return self.rows[position]
        raise NothingFound(f"There is no correction {correction_id}.")

    def is_correction(self, message: str) -> bool:
        return message.lower().startswith(("no, i meant", "i meant"))


class FakeComparing:
    def __init__(self, service: FakeService) -> None:
        self.service = service

    def methods(self) -> list[MethodView]:
        return [MethodView("base", "Unedited"), MethodView("ike", "IKE", "2305.12740"), *METHODS[:2], METHODS[3]]

    def usual(self) -> list[str]:
        return [item.name for item in self.methods()][:4]

    def run(
        self, facts: Sequence[int | str], methods: Sequence[str], *,
        progress: Callable[[float, str], None] | None = None, cancel: threading.Event | None = None,
        probes: Sequence[ProbeLine] | None = None,
    ) -> Comparison:  # fmt: skip
        statements = []
        for fact in facts:
            view = self.service.facts.preview(fact) if isinstance(fact, str) else None
            if view is not None and not view.ok:
                raise InvalidInput(view.problem)
            statements.append(view.statement if view else self.service.facts.get(int(fact)).statement)
        metrics = ("efficacy", "generality", "locality", "portability", "fluency")
        rows = []
        for number, name in enumerate(methods):
            if progress:
                progress(number / len(methods), name)
            for _ in range(20):
                if cancel is not None and cancel.is_set():
                    return Comparison(tuple(statements), metrics, tuple(rows))
                time.sleep(self.service.delay)
            share = 0.0 if name == "base" else 0.9 - number / 20
            cells = {m: MetricCell(share, max(0, share - 0.1), min(1, share + 0.1), 12) for m in metrics[:3]}
            cells["portability"] = MetricCell(None)
            cells["fluency"] = MetricCell(512.0, 500.0, 520.0, 12)
            rows.append(MethodRow(name, name.upper(), cells, 0.4 * number))
        asked = tuple(
            ProbeRow(
                statements[line.fact], line.kind, line.prompt, line.expected,
                {name: ProbeAnswer(line.expected if name != "base" else "Paris", name != "base") for name in methods},
            )
            for line in (self.probes(facts[:1]) if probes is None else probes)
        )  # fmt: skip
        return Comparison(tuple(statements), metrics, tuple(rows), asked)

    def probes(self, facts: Sequence[int | str]) -> tuple[ProbeLine, ...]:
        if not facts:
            raise InvalidInput("Choose or write at least one fact to compare on.")
        kinds = (("efficacy", "Rome"), ("generality", "Rome"), ("locality_neighbour", "London"))
        return tuple(
            ProbeLine(place, kind, f"Probe {kind} <b>?</b>", expected)
            for place in range(len(facts))
            for kind, expected in kinds
        )


class FakeBenchmarking:
    def __init__(self, service: FakeService) -> None:
        self.service = service

    def run(
        self, count: int, methods: Sequence[str], *, together: bool = False, seed: int | None = None,
        progress: Callable[[float, str], None] | None = None, cancel: threading.Event | None = None,
    ) -> Comparison:  # fmt: skip
        facts = [f"The Eiffel Tower is located in Place{number}." for number in range(count)]
        return self.service.comparing.run(facts, methods, progress=progress, cancel=cancel)


class FakeService:
    """See the module."""

    def __init__(self, folder: Path, *, delay: float = 0.0, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings(data=folder)
        self.delay = delay
        self.chats = Conversations(self.settings.data / "chats.sqlite")
        self.facts = FakeFacts(self)
        self.weights = FakeWeights(self)
        self.comparing = FakeComparing(self)
        self.benchmarking = FakeBenchmarking(self)
        self.ledger = FakeLedger(self)
        self.consolidating = FakeConsolidating(self)
        self.corrections = FakeCorrections()
        self.warmed = False

    def warm_up(self) -> None:
        self.warmed = True

    def status(self) -> Status:
        on = sum(entry.active for entry in self.weights.ledger)
        return Status("fake", "ready", self.facts.count(), on)

    def models(self) -> dict[str, Any]:
        return {"model": "fake", "parameters": 0, "device": "cpu"}

    def strategies(self) -> list[MethodView]:
        return [MethodView("ike", "IKE"), MethodView("mello", "MeLLo")]

    def answer_of(self, question: str, mode: str) -> tuple[str, FactView | None]:
        low = question.lower()
        if mode in ("auto", "memory", "both"):
            for fact in reversed(self.facts.rows):
                if fact.current and fact.subject.lower() in low:
                    return fact.object, fact
        if mode != "base":
            for entry in reversed(self.weights.ledger):
                subject, target = self.weights.targets[entry.id]
                if entry.active and subject.lower() in low:
                    return target, None
        return next((place for name, place in KNOWN.items() if name in low), "I don't know"), None

    def ask(
        self, question: str, *, mode: str | None = None, strategy: str | None = None,
        history: Sequence[Any] = (),
    ) -> dict[str, Any]:  # fmt: skip
        if not question.strip():
            raise InvalidInput("The question is empty.")
        if mode not in (None, "auto", "memory", "weights", "both", "base"):
            raise InvalidInput(f"Unknown mode {mode!r}.")
        meant = [row for row in self.corrections.list() if row.question == question]
        if meant and mode != "base":
            return self._corrected(meant[0])
        answer, fact = self.answer_of(question, mode or "auto")
        result = {
            "answer": answer,
            "source": "memory" if fact else "model",
            "strategy": "ike" if fact else "none",
            "route": {"strategy": "ike", "reason": "a stored fact is in scope"}
            if fact else {"strategy": "model", "reason": "no stored fact is in scope"},
            "hits": [{"fact_id": fact.id, "text": fact.statement, "score": 0.83}] if fact else [],
            "gate": {"in_scope": fact is not None, "score": 0.83 if fact else 0.21, "threshold": 0.61},
            "steps": [],
            "weight_edits": [
                {"id": entry.id, "method": entry.method, "facts": list(entry.facts)}
                for entry in self.weights.ledger if entry.active
            ],
            "seconds": 0.05,
        }  # fmt: skip
        self.consolidating.note(result)
        return result

    @staticmethod
    def _corrected(meant: CorrectionView) -> dict[str, Any]:
        step = {"correction": meant.text, "given for": meant.question, "score": 1.0, "source": "memory"}
        gate = {"in_scope": False, "score": 0.21, "threshold": 0.61}
        reason = "the user has corrected a question like this one"
        return {
            "answer": "As you meant it", "source": "memory", "strategy": "memprompt", "hits": [], "gate": gate,
            "steps": [step], "weight_edits": [], "seconds": 0.05, "route": {"strategy": "memprompt", "reason": reason},
        }  # fmt: skip

    def gate_rates(self) -> GateRates:
        kinds = (("in scope", 0.97, 400), ("same subject, other relation", 0.02, 180))
        return GateRates(0.61, 0.97, 0.008, 400, 980, kinds, "held-out phrasings")

    def ask_stream(
        self, question: str, *, mode: str | None = None, strategy: str | None = None,
        history: Sequence[Any] = (), cancel: threading.Event | None = None,
    ) -> Iterator[str | dict[str, Any]]:  # fmt: skip
        result = self.ask(question, mode=mode, strategy=strategy, history=history)
        words = ["word "] * 200 if "long" in question else list(result["answer"])
        for word in words:
            if cancel is not None and cancel.is_set():
                return
            time.sleep(self.delay)
            yield word
        if "long" in question:
            result["answer"] = "".join(words).strip()
        yield result

    def ask_unedited(self, question: str, *, history: Sequence[Any] = (), cancel: threading.Event | None = None) -> str:
        return self.answer_of(question, "base")[0]

    def route(self, question: str) -> dict[str, Any]:
        result = self.ask(question)
        return {"query": question, **result["gate"], "hits": result["hits"]}

    def close(self) -> None:
        pass
