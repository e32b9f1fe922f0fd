"""Stand-ins for the costly seams: an encoder without weights, and a language model that follows a script."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Any

import numpy as np

from language_model.prompts import Message
from memory.embedder import Embedder, Vectors
from memory.models import Prompt


class HashEmbedder(Embedder):
    """Bags of hashed words and letter triples: texts with common words are near each other. No weights, instant."""

    id = "hash-64"
    dim = 64

    def __init__(self, name: str = "hash-64") -> None:
        super().__init__()
        self.id = name
        self.texts_embedded = 0

    def _embed(self, texts: Sequence[str]) -> Vectors:
        self.texts_embedded += len(texts)
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            words = text.casefold().split()
            for piece in [*words, *(word[at : at + 3] for word in words for at in range(len(word) - 2))]:
                number = zlib.crc32(f"{self.id}{piece}".encode())
                out[row, number % self.dim] += 1 if number & 1024 else -1
        out[:, 0] += 1e-3
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def words_of(prompt: Prompt) -> str:
    """All text of a prompt."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


class FakeModel:
    """Answers by a function of the prompt's text; streams word by word; remembers what it was asked."""

    name = "fake"

    def __init__(self, reply: Callable[[str], str] = lambda text: "Paris", context: int = 512) -> None:
        self.reply = reply
        self.context = context
        self.prompts: list[Prompt] = []
        self.overlays: list[Any] = []
        self.pieces_computed = 0

    def count_tokens(self, prompt: Prompt) -> int:
        return len(words_of(prompt).split())

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 48,
        overlays: Sequence[Any] | None = None,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> list[str]:
        return [
            "".join(self.stream(prompt, overlay=overlay, max_new_tokens=max_new_tokens, cancel=cancel)).strip()
            for prompt, overlay in zip(prompts, overlays or [None] * len(prompts), strict=True)
        ]

    def stream(
        self,
        prompt: Prompt,
        *,
        overlay: Any = None,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> Iterator[str]:
        self.prompts.append(prompt)
        self.overlays.append(overlay)
        for word in self.reply(words_of(prompt)).split()[:max_new_tokens]:
            if cancel is not None and cancel.is_set():
                return
            self.pieces_computed += 1
            yield word + " "


class CopyingModel(FakeModel):
    """Does what a good model does: the last word of the fact in context, else what it knows, else "I don't know"."""

    def __init__(self, known: dict[str, str] | None = None, context: int = 512) -> None:
        self.known = known or {}
        super().__init__(self._reply, context)

    def _reply(self, text: str) -> str:
        block = text.split("\n\n")[-1]
        facts = [line.removeprefix("New fact: ") for line in block.splitlines() if line.startswith("New fact: ")]
        if facts:
            return facts[-1].rstrip(".").split()[-1]
        return next((answer for part, answer in self.known.items() if part in block), "I don't know")


def chat(*turns: str) -> list[Message]:
    """Turns of a conversation, the user's first."""
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]  # type: ignore[typeddict-item]
