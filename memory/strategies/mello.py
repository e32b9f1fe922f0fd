"""MeLLo (2305.14795, section 5): a multi-hop question is answered hop by hop, each hop checked against the memory.

A round: the model writes the next subquestion, answers it tentatively, the nearest fact is retrieved, and the model
says whether it contradicts the answer; if so the chain goes on with the fact's answer. The published method always
takes the nearest fact; here the gate may say that nothing was retrieved.
"""

from __future__ import annotations

from collections.abc import Generator

from knowledge.text import normalise_answer
from language_model.prompts import Hop, Message, compare_fact, next_step, read_step, read_verdict, user
from memory.gate import Gate
from memory.models import ChatModel
from memory.strategies.base import Outcome, Request, Step, Strategy
from memory.view import Hit

ROUNDS = 4  # one a hop


class MeLLo(Strategy):
    """Subquestions, tentative answers, retrieved facts, contradictions; the chain is in ``Answer.steps``."""

    name = "mello"
    title = "MeLLo: multi-hop by subquestions"
    paper = "2305.14795"

    def __init__(self, lm: ChatModel, gate: Gate, rounds: int = ROUNDS) -> None:
        super().__init__(lm, gate)
        self.rounds = rounds

    def run(self, request: Request) -> Generator[str, None, Outcome]:
        hops: list[Hop] = []
        steps: list[Step] = []
        used: list[Hit] = []
        while len(hops) < self.rounds:
            kind, text = read_step(self.reply(next_step(request.query, hops), request))
            repeated = any(normalise_answer(hop.subquestion) == normalise_answer(text) for hop in hops)
            if kind == "unclear" or (kind == "subquestion" and repeated):
                break
            if kind == "final":
                if not hops:  # the model did not break the question up
                    break
                return self._end(text, hops, steps, used, (yield text))
            step, hit = self._hop(text, request)
            steps.append(step)
            if request.on_step is not None:
                request.on_step(step)
            hops.append(Hop(text, str(step["answer"])))
            if hit is not None:
                used.append(hit)
        if hops:  # rounds used up, or the model lost the thread: the last hop's answer is the best there is
            text = hops[-1].answer
            yield text
            return self._end(text, hops, steps, used, None)
        return (yield from self._direct(request))

    def _hop(self, subquestion: str, request: Request) -> tuple[Step, Hit | None]:
        messages: list[Message] = [user(subquestion)]
        tentative = self.reply(messages, request)
        verdict = self.gate.judge(subquestion, namespace=request.namespace)
        step: Step = {"subquestion": subquestion, "tentative": tentative, "retrieved": None}
        step |= {"verdict": "nothing retrieved", "answer": tentative, "source": "model"}
        if not verdict.in_scope:
            return step, None
        hit = verdict.accepted[0]
        decision, answer = read_verdict(self.reply(compare_fact(subquestion, tentative, hit.text), request))
        step |= {"retrieved": hit.to_json(), "verdict": decision}
        if decision == "contradicts":
            step |= {"answer": answer or hit.fact.object, "source": "memory"}
            return step, hit
        if decision == "agrees":
            step |= {"source": "memory"}
            return step, hit
        return step, None

    def _end(self, text: str, hops: list[Hop], steps: list[Step], used: list[Hit], _: None) -> Outcome:
        return Outcome(text, "memory" if used else "model", tuple(used), tuple(steps))

    def _direct(self, request: Request) -> Generator[str, None, Outcome]:
        """No chain was found: one fact in context where one is in scope, else the plain model."""
        from memory.strategies.ike import IKE

        return (yield from IKE(self.lm, self.gate).run(request))
