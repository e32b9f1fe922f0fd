"""What the strategies ask of a language model: text in, text out.

:class:`language_model.model.LanguageModel` fits as it is; a remote chat model is wrapped by :mod:`memory.remote`; the
tests use a fake. Overlays (weight edits) are passed through untouched and never looked into here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, Protocol

from language_model.prompts import Message

Prompt = str | Sequence[Message]


class ChatModel(Protocol):
    """A model that answers prompts greedily."""

    @property
    def name(self) -> str: ...

    @property
    def context(self) -> int:
        """Tokens that fit into one prompt with its answer."""
        ...

    def count_tokens(self, prompt: Prompt) -> int: ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 48,
        overlays: Sequence[Any] | None = None,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> list[str]: ...

    def stream(
        self,
        prompt: Prompt,
        *,
        overlay: Any = None,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> Iterator[str]: ...
