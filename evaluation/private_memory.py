"""An edit memory for the length of a measurement: its own store, gate and strategy, nothing of the user's touched."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import Any

from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.text import Prompt
from memory import registry
from memory.embedder import load_embedder
from memory.gate import Gate
from memory.store import FactStore
from memory.strategies.base import Request


class PrivateMemory:
    """The edits as facts in memory, and a strategy that answers from them. The gate decides; no fact is given away."""

    def __init__(
        self,
        lm: LanguageModel,
        edits: Sequence[Edit],
        strategy: str,
        *,
        embedder: Any = None,
        threshold: float | None = None,
        cancel: Event | None = None,
        max_new_tokens: int = 48,
    ) -> None:
        self.lm = lm
        self.max_new_tokens = max_new_tokens
        self._cancel = cancel
        self.store = FactStore("sqlite:///:memory:", embedder if embedder is not None else load_embedder())
        for edit in edits:
            self.store.add(
                edit.subject,
                edit.relation,
                edit.target_new,
                prompt=edit.prompt,
                question=edit.question,
                object_aliases=edit.aliases,
                source="evaluation",
                target_true=edit.target_true,
            )
        self.gate = Gate(self.store, threshold=threshold)
        self.strategy = registry.get_strategy(strategy, lm, self.gate)
        self.preface = "".join(f"{fact.statement}\n" for fact in self.store.list())

    @property
    def one_prompt(self) -> bool:
        """True where an answer is one prompt, so that many questions are answered in one batch."""
        return callable(getattr(self.strategy, "prompt", None))

    def prompt(self, question: str) -> Prompt:
        """What the strategy asks the model: with the facts in scope, or the bare question where there are none."""
        request = self._request(question)
        hits = request.verdict.accepted
        if not hits:
            return self.lm.chat(question)
        limit = getattr(getattr(self.strategy, "options", None), "facts", len(hits))
        made: Prompt = self.strategy.prompt(request, hits[:limit])  # type: ignore[attr-defined]
        return made

    def answer(self, question: str) -> str:
        """The strategy's answer, however many steps it takes."""
        verdict = self.gate.judge(question)
        options = {"max_new_tokens": self.max_new_tokens, "cancel": self._cancel}
        return self.strategy.answer(question, (), verdict, None, **options).answer

    def _request(self, question: str) -> Request:
        return Request(question, self.gate.judge(question), max_new_tokens=self.max_new_tokens, cancel=self._cancel)

    def close(self) -> None:
        self.store.close()
