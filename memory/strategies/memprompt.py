"""MemPrompt (2201.06009, section 3): what the user meant, said in words after a wrong answer, helps the next time.

The correction is kept under the question that was misunderstood (:mod:`memory.corrections`). A later question that asks
the same of the same thing gets it appended to its prompt; the model itself does the rest. Where no correction
concerns the question, a fact in scope is used as IKE would, else the model answers alone.

    strategy.correct("What is the capital of Georgia?", "No, I meant the state.")     # the button under an answer
"""

from __future__ import annotations

from collections.abc import Generator

from language_model.prompts import with_correction
from memory.corrections import Correction, Corrections
from memory.gate import Gate
from memory.models import ChatModel
from memory.schema import DEFAULT_NAMESPACE
from memory.strategies.base import Outcome, Request, Step, Strategy
from memory.strategies.ike import IKE


class MemPrompt(Strategy):
    """Corrections in words, appended to the questions that they concern."""

    name = "memprompt"
    title = "MemPrompt: corrections in words"
    paper = "2201.06009"

    def __init__(self, lm: ChatModel, gate: Gate, corrections: Corrections | None = None) -> None:
        super().__init__(lm, gate)
        self.corrections = corrections or Corrections(gate)
        self._facts = IKE(lm, gate)

    def correct(
        self, question: str, words: str, *, actor: str = "user", namespace: str = DEFAULT_NAMESPACE
    ) -> Correction:
        """Keeps what the user meant by a question; ``corrections.remove`` takes it back."""
        return self.corrections.add(question, words, actor=actor, namespace=namespace)

    def run(self, request: Request) -> Generator[str, None, Outcome]:
        found = self.corrections.find(request.query, namespace=request.namespace)
        if found is None:
            return (yield from self._facts.run(request))
        step: Step = {"correction": found.text, "given for": found.question, "score": found.score, "source": "memory"}
        if request.on_step is not None:
            request.on_step(step)
        history = list(request.history)
        prompt = with_correction(request.query, found.text, history)
        while history and self.lm.count_tokens(prompt) > self.room(request):
            history = history[1:]
            while history and history[0]["role"] != "user":
                history = history[1:]
            prompt = with_correction(request.query, found.text, history)
        text = yield from self.say(prompt, request)
        return Outcome(text, "memory", (), (step,))
