"""The router: which way a question takes, and why.

| mode    | a fact is in scope                        | otherwise                          |
| ------- | ----------------------------------------- | ---------------------------------- |
| auto    | a strategy, on the unedited model         | the model with its weight edits    |
| memory  | a strategy, on the unedited model         | the unedited model                 |
| weights | the model with its weight edits           | the model with its weight edits    |
| both    | a strategy, on the model with its edits   | the model with its weight edits    |
| base    | the unedited model                        | the unedited model                 |

Unless the user names a strategy: where the user has corrected a question like this one in words, MemPrompt; where
facts lead along the whole chain that the question describes, or it asks for what lies beyond a fact's place, the graph
walk; for another chain MeLLo, unless no fact has a part in it; IKE for a single fact in scope.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event, Lock
from typing import Any, Literal, get_args

from knowledge.errors import InvalidInput, UnknownName
from language_model.prompts import Message
from memory import registry
from memory.gate import Gate, GateVerdict
from memory.models import ChatModel
from memory.questions import looks_like_chain
from memory.schema import DEFAULT_NAMESPACE
from memory.strategies.base import Answer, Plain, Step, Strategy, last, with_weight_edits
from memory.strategies.graph_walk import GraphWalk
from memory.strategies.memprompt import MemPrompt

Mode = Literal["auto", "memory", "weights", "both", "base"]
MODES: tuple[Mode, ...] = get_args(Mode)
LONGEST_QUESTION = 8_000  # characters


@dataclass(frozen=True, slots=True)
class Route:
    """The way a question takes."""

    strategy: str  # "model" for the plain model
    verdict: GateVerdict
    weights: bool  # whether the active weight edits are in force
    reason: str


class Router:
    """Decides and answers.

    Args:
        strategies: by name; None makes them from the registry when they are first needed.
        overlay_provider: the weight edits in force, None where there are none.
        weight_edits_provider: the same as plain data, for the evidence under an answer.
    """

    def __init__(
        self,
        lm: ChatModel,
        gate: Gate,
        strategies: Mapping[str, Strategy] | None = None,
        overlay_provider: Callable[[], Any] | None = None,
        weight_edits_provider: Callable[[], Sequence[dict[str, Any]]] | None = None,
    ) -> None:
        self.lm = lm
        self.gate = gate
        self._strategies: dict[str, Strategy] = dict(strategies or {})
        self._overlay = overlay_provider or (lambda: None)
        self._weight_edits = weight_edits_provider or (lambda: ())
        self._plain = Plain(lm, gate)
        self._lock = Lock()

    def strategy(self, name: str) -> Strategy:
        """The strategy of that name.

        Raises:
            UnknownName: there is none.
        """
        with self._lock:
            if name not in self._strategies:
                self._strategies[name] = registry.get_strategy(name, self.lm, self.gate)
            return self._strategies[name]

    def route(
        self,
        query: str,
        *,
        mode: Mode = "auto",
        strategy: str = "auto",
        history: Sequence[Message] = (),
        namespace: str = DEFAULT_NAMESPACE,
    ) -> Route:
        """Where the question would go; nothing is generated.

        Raises:
            InvalidInput: the question is empty or far too long, or there is no such mode.
        """
        if not query.strip():
            raise InvalidInput("The question is empty; type one.")
        if len(query) > LONGEST_QUESTION:
            raise InvalidInput(f"The question has {len(query)} characters, over the limit of {LONGEST_QUESTION}.")
        if mode not in MODES:
            raise UnknownName("mode", mode, MODES)
        names = {entry.name for entry in registry.available()} | set(self._strategies)
        if strategy not in ("auto", *names):
            raise UnknownName("strategy", strategy, ["auto", *names])
        if mode == "base":
            return Route("model", GateVerdict.skipped("The memory was not asked (mode base)."), False, "mode base")
        if mode == "weights":
            return Route("model", GateVerdict.skipped("The memory was not asked (mode weights)."), True, "mode weights")
        verdict = self.gate.judge(query, namespace=namespace)
        inside = mode == "both"
        if strategy != "auto":
            return Route(strategy, verdict, inside or (mode == "auto" and not verdict.in_scope), "chosen by the user")
        chosen = self._memory_strategy(query, verdict, namespace)
        if chosen is not None:
            name, reason, whole = chosen
            return Route(name, verdict, inside or (mode == "auto" and name != "memprompt" and not whole), reason)
        if verdict.in_scope:
            return Route("ike", verdict, inside, "a stored fact is in scope")
        return Route("model", verdict, mode in ("auto", "both"), "no stored fact is in scope")

    def _memory_strategy(self, query: str, verdict: GateVerdict, namespace: str) -> tuple[str, str, bool] | None:
        """A strategy that suits the question better than one fact in context, the reason, and whether memory alone
        answers it."""
        memprompt, walk = self.strategy("memprompt"), self.strategy("graph_walk")
        correction = (
            memprompt.corrections.find(query, namespace=namespace) if isinstance(memprompt, MemPrompt) else None
        )
        newer = [hit for hit in verdict.accepted if correction and hit.fact.recorded_at > correction.recorded_at]
        if correction is not None and not newer:  # a fact stated since then is the user's last word
            return "memprompt", "the user has corrected a question like this one", True
        chain = looks_like_chain(query)
        if (chain or not verdict.in_scope) and isinstance(walk, GraphWalk):
            path = walk.covers(query, namespace)
            if path is not None:
                return "graph_walk", f"memory holds all {len(path.facts)} hops of the question", True
            if chain and walk.reads(query, namespace):
                return "graph_walk", "the question has several hops that can be followed one by one", False
        best = verdict.accepted[0].fact if verdict.accepted else None
        if isinstance(walk, GraphWalk) and walk.goes_on(query, namespace, best):
            return "graph_walk", "the question asks for what lies beyond a stored fact", False
        if chain and not verdict.in_scope:
            return "mello", "the question has several hops that only the model can tell apart", False
        return None

    def stream(
        self,
        query: str,
        *,
        mode: Mode = "auto",
        strategy: str = "auto",
        history: Sequence[Message] = (),
        namespace: str = DEFAULT_NAMESPACE,
        max_new_tokens: int = 64,
        cancel: Event | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Iterator[str | Answer]:
        """Pieces of text as they come, then the answer with its evidence; closing the iterator stops it all."""
        start = time.perf_counter()
        route = self.route(query, mode=mode, strategy=strategy, history=history, namespace=namespace)
        overlay = self._overlay() if route.weights else None
        chosen = self._plain if route.strategy == "model" else self.strategy(route.strategy)
        options: dict[str, Any] = {"namespace": namespace, "max_new_tokens": max_new_tokens, "cancel": cancel}
        items: Iterable[str | Answer] = chosen.stream(
            query, history, route.verdict, overlay, on_step=on_step, **options
        )
        if route.strategy == "mello" and strategy == "auto":
            items = list(items)
            stopped = cancel is not None and cancel.is_set()
            if items and isinstance(items[-1], Answer) and not items[-1].hits and not stopped:
                # no fact had a part in the chain, so memory must not change what the model says by itself
                items = self._plain.stream(query, history, route.verdict, overlay, **options)
        for item in items:
            if isinstance(item, Answer):
                name = "model" if item.source == "model" and not item.steps else item.strategy
                told = {"strategy": route.strategy, "reason": route.reason}
                item = replace(item, strategy=name, seconds=time.perf_counter() - start, route=told)
                if overlay is not None:
                    item = with_weight_edits(item, self._weight_edits())
            yield item

    def answer(self, query: str, **options: Any) -> Answer:
        """The whole answer at once; options as for :meth:`stream`."""
        return last(self.stream(query, **options))
