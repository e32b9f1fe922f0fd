"""Corrections in words (MemPrompt) as the service offers them: "No, I meant ..." kept, found again, taken back."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from app.engine import Engine
from app.errors import NothingFound, TooLarge
from app.views import CorrectionView

if TYPE_CHECKING:
    from memory.corrections import Correction, Corrections


class CorrectionDesk:
    """In the namespace of the settings. Loads the sentence encoder, but no language model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def _kept(self) -> Corrections:
        from memory.corrections import Corrections

        return Corrections(self._engine.gate)

    @property
    def _space(self) -> str:
        return self._engine.settings.namespace

    def add(self, question: str, words: str) -> CorrectionView:
        """Keeps what was meant by a question; the next question that asks the same is answered with it in mind.

        Raises:
            PalimpsestError: the question or the words are empty or too long.
        """
        limit = self._engine.settings.max_message
        if len(question) > limit:
            raise TooLarge(f"The question has {len(question):,} characters; at most {limit:,} are taken. Shorten it.")
        made = self._kept.add(question, words, namespace=self._space)
        for item in self._kept.list(namespace=self._space):  # said twice, as by "retry": the newer one stands for both
            if item.id != made.id and (item.question, item.text) == (made.question, made.text):
                self._kept.remove(item.id)
        return _view(made)

    def list(self, *, include_past: bool = False) -> list[CorrectionView]:
        """Newest first; with ``include_past`` also those taken back."""
        return [_view(item) for item in self._kept.list(namespace=self._space, all_=include_past)]

    def remove(self, correction_id: int) -> CorrectionView:
        """Takes a correction back."""
        self._own(correction_id)
        return _view(self._kept.remove(correction_id))

    def restore(self, correction_id: int) -> CorrectionView:
        """Puts one in force again that was taken back."""
        self._own(correction_id)
        return _view(self._kept.restore(correction_id))

    def _own(self, correction_id: int) -> None:
        known = [item.id for item in self._kept.list(namespace=self._space, all_=True)]
        if correction_id not in known:
            names = ", ".join(map(str, known[:20])) or "none yet"
            raise NothingFound(f"There is no correction {correction_id}. Known: {names}.")

    def is_correction(self, message: str) -> bool:
        """Whether a message corrects the answer before it: "No, I meant the river." """
        from memory.corrections import corrects

        return corrects(message)


def _view(item: Correction) -> CorrectionView:
    return CorrectionView(item.id, item.question, item.text, item.actor, item.recorded_at.isoformat(), item.active)
