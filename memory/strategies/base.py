"""What every strategy is: a question in, pieces of text and one :class:`Answer` out.

    class Mine(Strategy):
        name, title, paper = "mine", "My strategy", "arXiv number"

        def run(self, request):
            text = yield from self.say(prompt, request)       # streams, and gives back the whole text
            return Outcome(text, "memory", hits)

A strategy asks the gate and never takes a fact for granted; where nothing is in scope it answers as the plain model.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, ClassVar, Literal

from language_model.prompts import Message
from memory.gate import Gate, GateVerdict
from memory.models import ChatModel, Prompt
from memory.schema import DEFAULT_NAMESPACE
from memory.view import Hit

Source = Literal["memory", "model"]
Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence.

    Attributes:
        route: the way that the router chose, {"strategy", "reason"}; None where a strategy was asked directly. The
            strategy chosen may have found nothing to use, so it can differ from ``strategy``, which answered.
    """

    answer: str
    source: Source
    strategy: str
    hits: tuple[Hit, ...]
    gate: GateVerdict
    steps: tuple[Step, ...] = ()
    weight_edits: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    model: str = ""
    route: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """The shape that the command line prints; other programs rely on it."""
        data: dict[str, Any] = {
            "answer": self.answer,
            "source": self.source,
            "strategy": self.strategy,
            "hits": [hit.to_json() for hit in self.hits],
            "gate": self.gate.to_json(),
            "steps": list(self.steps),
            "weight_edits": list(self.weight_edits),
            "seconds": round(self.seconds, 3),
        }
        return data if self.route is None else data | {"route": self.route}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy's :meth:`Strategy.run` returns."""

    text: str
    source: Source
    hits: tuple[Hit, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A question with all that goes with it."""

    query: str
    verdict: GateVerdict
    history: tuple[Message, ...] = ()
    overlay: Any = None  # weight edits in force, for the model
    namespace: str = DEFAULT_NAMESPACE
    max_new_tokens: int = 64
    cancel: Event | None = None
    on_step: Callable[[Step], None] | None = field(default=None, repr=False)


class Strategy(ABC):
    """A way of answering; made once, used for many questions, from several threads."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str] = ""

    def __init__(self, lm: ChatModel, gate: Gate) -> None:
        self.lm = lm
        self.gate = gate

    def stream(
        self,
        query: str,
        history: Sequence[Message] = (),
        verdict: GateVerdict | None = None,
        overlay: Any = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        max_new_tokens: int = 64,
        cancel: Event | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Iterator[str | Answer]:
        """Pieces of text as they come, then the :class:`Answer`. Closing the iterator stops the computation.

        Args:
            verdict: the gate's, where it has been asked already.
            overlay: weight edits in force.
            on_step: told each step of a chain as it is done.
        """
        start = time.perf_counter()
        judged = verdict if verdict is not None else self.gate.judge(query, namespace=namespace)
        request = Request(query, judged, tuple(history), overlay, namespace, max_new_tokens, cancel, on_step)
        outcome = yield from self.run(request)
        yield Answer(
            answer=outcome.text.strip(),
            source=outcome.source,
            strategy=self.name,
            hits=outcome.hits,
            gate=judged,
            steps=outcome.steps,
            seconds=time.perf_counter() - start,
            model=self.lm.name,
        )

    def answer(
        self,
        query: str,
        history: Sequence[Message] = (),
        verdict: GateVerdict | None = None,
        overlay: Any = None,
        **options: Any,
    ) -> Answer:
        """The whole answer at once; arguments as for :meth:`stream`."""
        return last(self.stream(query, history, verdict, overlay, **options))

    @abstractmethod
    def run(self, request: Request) -> Generator[str, None, Outcome]:
        """Yields the answer's text piece by piece and returns the outcome."""

    # ------------------------------------------------------------------------------------------------ for subclasses

    def say(self, prompt: Prompt, request: Request) -> Generator[str, None, str]:
        """Streams the model's reply and returns all of it."""
        pieces: list[str] = []
        stream = self.lm.stream(
            prompt, overlay=request.overlay, max_new_tokens=request.max_new_tokens, cancel=request.cancel
        )
        for piece in stream:
            pieces.append(piece)
            yield piece
        return "".join(pieces).strip()

    def reply(self, prompt: Prompt, request: Request, max_new_tokens: int = 48) -> str:
        """The model's reply to a step of a chain, not shown."""
        return self.lm.generate(
            [prompt], max_new_tokens=max_new_tokens, overlays=[request.overlay], cancel=request.cancel
        )[0]

    def plain(self, request: Request) -> Generator[str, None, Outcome]:
        """The model's own answer, no fact used."""
        messages: list[Message] = [*request.history, {"role": "user", "content": request.query}]
        text = yield from self.say(self.fit(messages, request), request)
        return Outcome(text, "model")

    def room(self, request: Request) -> int:
        """Tokens that a prompt may have, so that the answer still fits."""
        return max(16, self.lm.context - request.max_new_tokens)

    def fit(self, messages: Sequence[Message], request: Request) -> list[Message]:
        """The messages without as many old turns as it takes to fit the context."""
        kept = list(messages)
        while len(kept) > 1 and self.lm.count_tokens(kept) > self.room(request):
            kept = kept[1:]
            while len(kept) > 1 and kept[0]["role"] != "user":
                kept = kept[1:]
        return kept


def last(stream: Iterator[str | Answer]) -> Answer:
    """Runs a stream to its end and gives its answer."""
    answer: Answer | None = None
    for item in stream:
        if isinstance(item, Answer):
            answer = item
    if answer is None:
        raise RuntimeError("the strategy ended without an answer")
    return answer


class Plain(Strategy):
    """The model by itself, with whatever weight edits are in force."""

    name = "model"
    title = "Model only"

    def run(self, request: Request) -> Generator[str, None, Outcome]:
        return (yield from self.plain(request))


def with_weight_edits(answer: Answer, edits: Sequence[dict[str, Any]]) -> Answer:
    return replace(answer, weight_edits=tuple(edits))
