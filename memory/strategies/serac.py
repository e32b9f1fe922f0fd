"""SERAC (2206.06520): a cache of edits, a scope classifier, and a counterfactual model that answers inside the scope.

The scope classifier is the gate's head (trained with hard negatives: same subject and other relation, same relation
and other subject), at its calibrated threshold or, with ``paper_threshold``, at the paper's 0.5. The counterfactual
model is our own small one, a pointer into the edit (:mod:`memory.counterfactual`), not a language model: it gives the
object, the subject, or Yes and No, and never a sentence. Outside the scope the base model answers, untouched.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from memory.counterfactual import Case, Counterfactual
from memory.gate import Gate
from memory.models import ChatModel
from memory.strategies.base import Outcome, Request, Step, Strategy


@dataclass(frozen=True, slots=True)
class SERACOptions:
    """Switches, for ablations too."""

    paper_threshold: bool = False  # 0.5 as in the paper (section 4) instead of the calibrated threshold


class SERAC(Strategy):
    """In scope the counterfactual model answers, otherwise the base model."""

    name = "serac"
    title = "SERAC: scope and counterfactual model"
    paper = "2206.06520"

    def __init__(
        self,
        lm: ChatModel,
        gate: Gate,
        options: SERACOptions | None = None,
        counterfactual: Counterfactual | None = None,
    ) -> None:
        super().__init__(lm, gate)
        self.options = options or SERACOptions()
        self._counterfactual = counterfactual

    @property
    def counterfactual(self) -> Counterfactual:
        if self._counterfactual is None:
            self._counterfactual = Counterfactual.shipped(self.gate.store.embedder)
        return self._counterfactual

    def run(self, request: Request) -> Generator[str, None, Outcome]:
        if request.cancel is not None and request.cancel.is_set():
            return Outcome("", "model")
        threshold = 0.5 if self.options.paper_threshold else request.verdict.threshold
        hits = tuple(hit for hit in request.verdict.hits if hit.score >= threshold)[:1]
        if not hits:
            return (yield from self.plain(request))
        fact = hits[0].fact
        case = Case.of(request.query, fact, self.gate.store)
        choice, probability = self.counterfactual.choose([case])[0]
        text = self.counterfactual.answer(case)
        step: Step = {
            "retrieved": hits[0].to_json(),
            "verdict": f"counterfactual model: {choice}",
            "score": round(probability, 4),
            "answer": text,
            "source": "memory",
        }
        if request.on_step is not None:
            request.on_step(step)
        yield text
        return Outcome(text, "memory", hits, (step,))
