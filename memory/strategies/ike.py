"""IKE, in-context knowledge editing (2305.12740): the fact is put before the question, after worked examples.

The examples are of three kinds, 1:3:4 (section 3.2): *copy* (asks for the new fact itself), *update* (a paraphrase)
and *retain* (an unrelated question that keeps its answer; without them locality falls from 77 to 12 in the paper).
The published code gives every question the right fact; here the gate decides which fact there is, if any.

A short answer that did not take over the fact (a refusal, what the model says without the fact, a misspelt name) is
replaced by what the fact says, and the evidence tells so (:mod:`memory.strategies.taking_over`); ``checked=False``
gives the paper's method.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from language_model.prompts import Demonstration, Message, user, with_facts
from memory.demonstrations import Demonstrations
from memory.gate import Gate
from memory.models import ChatModel, Prompt
from memory.strategies.base import Outcome, Request, Step, Strategy
from memory.strategies.taking_over import SHORT, TakingOver
from memory.view import Hit


@dataclass(frozen=True, slots=True)
class IKEOptions:
    """Switches, for ablations too."""

    demonstrations: int | None = None  # None: by the model's context, 32 with 2048 tokens, 16 with 1024, fewer below
    copy: bool = True
    update: bool = True
    retain: bool = True
    facts: int = 4  # at most so many facts in scope go into one prompt
    checked: bool = True  # an answer that ignores the fact is replaced


class IKE(Strategy):
    """Facts in context, with demonstrations as far as the context goes."""

    name = "ike"
    title = "IKE: facts in context"
    paper = "2305.12740"

    def __init__(
        self,
        lm: ChatModel,
        gate: Gate,
        options: IKEOptions | None = None,
        demonstrations: Demonstrations | None = None,
    ) -> None:
        super().__init__(lm, gate)
        self.options = options or IKEOptions()
        self._demonstrations = demonstrations
        self._taking_over = TakingOver(gate)

    @property
    def demonstrations(self) -> Demonstrations:
        if self._demonstrations is None:
            self._demonstrations = Demonstrations.bundled(self.gate.store.embedder)
        return self._demonstrations

    def run(self, request: Request) -> Generator[str, None, Outcome]:
        hits = request.verdict.accepted[: self.options.facts]
        if not hits:
            return (yield from self.plain(request))
        prompt = self.prompt(request, hits)
        if not self.options.checked:
            return Outcome((yield from self.say(prompt, request)), "memory", hits)
        text, said = yield from self._held_back(prompt, request)
        if said:
            return Outcome(text, "memory", hits)
        instead = None
        if request.cancel is None or not request.cancel.is_set():
            messages = [*request.history, user(request.query)]
            instead = self._taking_over.instead(
                request.query, text, hits, lambda: self.reply(self.fit(messages, request), request)
            )
        if instead is None:
            yield text
            return Outcome(text, "memory", hits)
        step: Step = {
            "retrieved": hits[0].to_json(),
            "verdict": f"the fact answers itself: {instead.why}",
            "answer": instead.answer,
            "source": "memory",
        }
        if request.on_step is not None:
            request.on_step(step)
        yield instead.answer
        return Outcome(instead.answer, "memory", hits, (step,))

    def _held_back(self, prompt: Prompt, request: Request) -> Generator[str, None, tuple[str, bool]]:
        """The reply, and whether it was said: a short one is not, so that it can be looked at first."""
        text, said = "", False
        stream = self.lm.stream(
            prompt, overlay=request.overlay, max_new_tokens=request.max_new_tokens, cancel=request.cancel
        )
        for piece in stream:
            text += piece
            if said:
                yield piece
            elif len(text) > SHORT:
                said = True
                yield text
        return text.strip(), said

    def prompt(self, request: Request, hits: Sequence[Hit]) -> list[Message]:
        """The prompt for these facts, as many demonstrations and earlier turns in it as fit."""
        facts = [hit.text for hit in reversed(hits)]  # the best fact stands nearest to the question
        room = self.room(request)
        examples = self._examples(hits[0])
        history = list(request.history)
        while True:
            prompt = with_facts(request.query, facts, examples, history)
            if self.lm.count_tokens(prompt) <= room or not (examples or history or len(facts) > 1):
                return prompt
            if examples:
                examples = examples[1:]
            elif history:
                history = history[1:]
                while history and history[0]["role"] != "user":
                    history = history[1:]
            else:
                facts = facts[1:]

    def _examples(self, hit: Hit) -> list[Demonstration]:
        wanted = self.options.demonstrations
        number = budget(self.lm.context) if wanted is None else wanted
        if number <= 0:
            return []
        kinds = [
            kind
            for kind, on in (
                ("copy", self.options.copy),
                ("update", self.options.update),
                ("retain", self.options.retain),
            )
            if on
        ]
        return self.demonstrations.near(hit.fact, number, kinds)


def budget(context: int) -> int:
    """Demonstrations that a context is worth: 32 with 2048 tokens, 16 with 1024, 4 with 512, none below 256."""
    for tokens, number in ((2048, 32), (1024, 16), (768, 8), (512, 4), (256, 2)):
        if context >= tokens:
            return number
    return 0
