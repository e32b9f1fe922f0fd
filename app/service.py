"""The service: all that the program can do, in one object. The command line and the user interface call only this.

service = Service(load_settings(data="data"))
service.facts.add("The Eiffel Tower is located in Rome.")
service.ask("Where is the Eiffel Tower?")["answer"]       # "Rome"
service.weights.apply("r-rome", fact_ids=[1])
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from app.benchmark_desk import BenchmarkDesk
from app.compare_desk import CompareDesk
from app.consolidation_desk import ConsolidationDesk
from app.conversations import Conversations
from app.correction_desk import CorrectionDesk
from app.engine import Engine
from app.errors import TooLarge
from app.fact_desk import FactDesk
from app.ledger_desk import LedgerDesk
from app.settings import Settings
from app.views import GateRates, MethodView, Status
from app.weight_desk import WeightDesk
from knowledge.errors import InvalidInput

log = logging.getLogger(__name__)


class Service:
    """Everything, lazily: listing facts loads no model, and the user interface is up before the model is.

    Args:
        engine: the costly parts; tests pass one with fakes.
    """

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        self.engine = engine or Engine(settings)
        self.facts = FactDesk(self.engine)
        self.corrections = CorrectionDesk(self.engine)
        self.weights = WeightDesk(self.engine, self.facts)
        self.ledger = LedgerDesk(self.engine)
        self.consolidating = ConsolidationDesk(self.engine)
        self.comparing = CompareDesk(self.engine, self.facts)
        self.benchmarking = BenchmarkDesk(self.engine, self.comparing)

    @cached_property
    def chats(self) -> Conversations:
        return Conversations(self.settings.data / "chats.sqlite")

    def warm_up(self) -> None:
        """Starts loading the model in the background."""
        threading.Thread(target=self.engine.warm_up, name="warm-up", daemon=True).start()

    def status(self) -> Status:
        """What answers and what is written over; never waits for the model."""
        state, detail = self.engine.state
        name = Path(self.settings.model).name or self.settings.model
        return Status(name, state, self.facts.count(), self.engine.active_weight_edits(), detail)

    def models(self) -> dict[str, Any]:
        """What is in use: language model, encoder, gate, and where the data lies. Loads the model."""
        from app.inventory import inventory

        return inventory(self.engine)

    def strategies(self) -> list[MethodView]:
        from memory.registry import available

        return [
            MethodView(entry.name, entry.title.partition(":")[0], entry.paper, entry.title) for entry in available()
        ]

    def ask(
        self, question: str, *, mode: str | None = None, strategy: str | None = None, history: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """The answer with its evidence, in the shape of ``ask --json``.

        Raises:
            PalimpsestError: an empty question, an unknown mode or strategy, or a model that cannot be loaded.
        """
        self._readable(question)  # said at once, not after the model has been loaded
        answer = self.engine.router.answer(question, history=history, **self._options(mode, strategy))
        found: dict[str, Any] = answer.to_json()
        self._count(found)
        return found

    def ask_stream(
        self,
        question: str,
        *,
        mode: str | None = None,
        strategy: str | None = None,
        history: Sequence[Any] = (),
        cancel: threading.Event | None = None,
    ) -> Iterator[str | dict[str, Any]]:
        """The answer's text piece by piece, then the whole as :meth:`ask` gives it.

        Setting ``cancel``, or closing the iterator, stops the computation itself.
        """
        options = self._options(mode, strategy)
        for item in self.engine.router.stream(question, history=history, cancel=cancel, **options):
            if isinstance(item, str):
                yield item
            else:
                found = item.to_json()
                self._count(found)
                yield found

    def ask_unedited(self, question: str, *, history: Sequence[Any] = (), cancel: threading.Event | None = None) -> str:
        """What the model says without memory and without weight edits."""
        options = self._options("base", "auto")
        answer: str = self.engine.router.answer(question, history=history, cancel=cancel, **options).answer
        return answer

    def route(self, question: str) -> dict[str, Any]:
        """The gate's verdict on a question, and the facts it looked at. No language model is loaded."""
        self._readable(question)
        verdict = self.engine.gate.judge(question, namespace=self.settings.namespace)
        hits = [hit.to_json() for hit in verdict.hits]
        return {"query": question, **verdict.to_json(), "hits": hits, "reason": verdict.reason}

    def gate_rates(self) -> GateRates:
        """What was measured of the gate; no rates where the settings put its threshold elsewhere."""
        gate = self.engine.gate
        seen = gate.calibration
        if gate.threshold != seen.threshold or seen.true_positive_rate is None:
            return GateRates(gate.threshold)
        kinds = tuple((kind, row["rate"], int(row["n"])) for kind, row in seen.by_kind.items())
        return GateRates(
            gate.threshold,
            seen.true_positive_rate,
            seen.false_positive_rate,
            seen.positives,
            seen.negatives,
            kinds,
            seen.measured_on,
        )

    def _readable(self, question: str) -> None:
        if not question.strip():
            raise InvalidInput("The question is empty; type one.")
        limit = self.settings.max_message
        if len(question) > limit:
            raise TooLarge(f"The question has {len(question):,} characters; at most {limit:,} are taken. Shorten it.")

    def _count(self, answer: dict[str, Any]) -> None:
        """Notes which facts have served, for consolidation; an answer is never lost over it."""
        try:
            self.consolidating.note(answer)
        except Exception:
            log.warning("could not count the facts of an answer", exc_info=True)

    def _options(self, mode: str | None, strategy: str | None) -> dict[str, Any]:
        return {
            "mode": mode or self.settings.mode,
            "strategy": strategy or self.settings.strategy,
            "namespace": self.settings.namespace,
            "max_new_tokens": self.settings.max_new_tokens,
        }

    def close(self) -> None:
        """Writes what is pending and closes the database."""
        self.engine.close()
