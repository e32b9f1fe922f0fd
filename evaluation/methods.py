"""The methods that a comparison sets side by side, each as one function.

A method is given the model and the edits and returns a :class:`Treatment`: what overlay to answer under, and how a
question is put to the model. So a weight editor, a retrieval strategy and the unedited model are measured by one code:

    base()                 # the model as it is
    weights("r-rome")      # an overlay
    memory("ike")          # a prompt with the fact in it, or an answer in several steps
    method("memit")        # any of them, by name

Nothing outside is touched: a memory method fills a store of its own, an overlay belongs to the comparison alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from knowledge.edit import Edit
from knowledge.errors import UnknownName
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from language_model.text import Prompt

Progress = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is being done."""


@dataclass(frozen=True)
class Treatment:
    """A model with the edits made.

    Attributes:
        overlay: the weights to answer under; None for those of the model.
        prompt: the prompt that a question becomes; None: the question itself.
        answer: answers a question in a way that is not one prompt (a chain of steps); wins over ``prompt``.
        preface: what stands before a text that the model is to go on with freely.
        close: lets go of what the treatment holds.
    """

    overlay: Overlay | None = None
    prompt: Callable[[str], Prompt] | None = None
    answer: Callable[[str], str] | None = None
    preface: str = ""
    close: Callable[[], None] = lambda: None


Make = Callable[[LanguageModel, Sequence[Edit], Progress, Event], Treatment]


@dataclass(frozen=True)
class Method:
    """A row of a comparison; ``family`` is "base", "memory" or "weights"."""

    name: str
    title: str
    make: Make
    family: str = "weights"
    paper: str = ""
    summary: str = ""


def base() -> Method:
    """The unedited model."""
    summary = "the model as it was loaded"
    return Method("base", "Unedited model", lambda lm, edits, progress, cancel: Treatment(), "base", "", summary)


def weights(name: str, *, editor: Callable[[], Any] | None = None, moments: Any = None) -> Method:
    """A weight editor: all edits in one call.

    Args:
        editor: makes the editor; by default the registry does. It has ``edit(lm, edits, progress=...) -> Overlay``.
        moments: the store of second moments that the editors of one program share.

    Raises:
        UnknownName: neither ``editor`` is given nor does the registry know the name.
    """
    from editors import registry

    info = registry.available().get(name)
    if editor is None and info is None:
        raise UnknownName("editor", name, registry.available())

    def make(lm: LanguageModel, edits: Sequence[Edit], progress: Progress, cancel: Event) -> Treatment:
        tool = editor() if editor is not None else registry.get_editor(name, moments=moments, refuse_known=False)
        return Treatment(overlay=tool.edit(lm, list(edits), progress=progress))

    if info is None:
        return Method(name, name, make)
    return Method(info.name, info.title, make, "weights", info.paper, info.summary)


def memory(name: str, *, embedder: Any = None, threshold: float | None = None) -> Method:
    """A strategy of edit memory, over a private store that holds the edits and nothing else.

    Args:
        embedder: the sentence encoder; the default one is loaded where none is given.
        threshold: of the gate; the calibrated one by default.

    Raises:
        UnknownName: no strategy has this name.
    """
    from memory import registry

    entry = {item.name: item for item in registry.available()}.get(name)
    if entry is None:
        raise UnknownName("strategy", name, [item.name for item in registry.available()])

    def make(lm: LanguageModel, edits: Sequence[Edit], progress: Progress, cancel: Event) -> Treatment:
        from evaluation.private_memory import PrivateMemory

        held = PrivateMemory(lm, edits, name, embedder=embedder, threshold=threshold, cancel=cancel)
        prompt, answer = (held.prompt, None) if held.one_prompt else (None, held.answer)
        return Treatment(prompt=prompt, answer=answer, preface=held.preface, close=held.close)

    title, _, summary = entry.title.partition(": ")
    return Method(entry.name, title, make, "memory", entry.paper, summary)


def available(*, embedder: Any = None, moments: Any = None, threshold: float | None = None) -> dict[str, Method]:
    """Every method by name, in the order in which they are shown: the unedited model, memory, weights."""
    from editors import registry as editors
    from memory import registry as strategies

    rows = [base()]
    rows += [memory(entry.name, embedder=embedder, threshold=threshold) for entry in strategies.available()]
    rows += [weights(name, moments=moments) for name in editors.available()]
    return {row.name: row for row in rows}


def method(name: str, **shared: Any) -> Method:
    """The method of that name; ``shared`` as for :func:`available`.

    Raises:
        UnknownName: there is none.
    """
    rows = available(**shared)
    if name not in rows:
        raise UnknownName("method", name, rows)
    return rows[name]
