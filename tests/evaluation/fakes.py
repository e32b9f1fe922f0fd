"""A language model of a few sentences: it answers by looking words up, so that comparisons run in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from evaluation.methods import Method, Treatment
from knowledge.text import mentions
from language_model.scoring import TargetScore


@dataclass
class FakeModel:
    """Answers with the first entry whose subject stands in the prompt; an overlay is a mapping looked at before."""

    facts: Mapping[str, str]
    calls: list[list[Any]] = field(default_factory=list)
    on_generate: Callable[[], None] = lambda: None

    def chat(self, text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    def _say(self, prompt: Any, overlay: Mapping[str, str] | None) -> str:
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        for table in (overlay or {}, self.facts):
            for subject, answer in table.items():
                if mentions(text, subject):
                    return answer
        return "I don't know"

    def generate(
        self,
        prompts: Sequence[Any],
        *,
        max_new_tokens: int = 32,
        overlays: Sequence[Any] | None = None,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> list[str]:
        self.on_generate()
        rows = list(overlays or [None] * len(prompts))
        self.calls.append(rows)
        texts = [self._say(prompt, overlay) for prompt, overlay in zip(prompts, rows, strict=True)]
        return [f"{text}. And so on." if isinstance(p, str) else text for p, text in zip(prompts, texts, strict=True)]

    def score(self, prompts: Sequence[Any], targets: Sequence[str], *, overlays: Sequence[Any]) -> list[TargetScore]:
        said = [self._say(prompt, overlay) for prompt, overlay in zip(prompts, overlays, strict=True)]
        return [
            TargetScore((-0.1,) if text == target else (-5.0,), (text == target,))
            for text, target in zip(said, targets, strict=True)
        ]


def editing(name: str, change: Mapping[str, str]) -> Method:
    """A weight editor whose overlay is a mapping."""
    return Method(name, name.upper(), lambda lm, edits, progress, cancel: Treatment(overlay=change))  # type: ignore[arg-type]
