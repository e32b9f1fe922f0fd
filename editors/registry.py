"""The editors by name. Listing them loads no torch: a class is imported when it is asked for.

    available()                       # {"rome": EditorInfo(...), ...}
    editor = get_editor("r-rome", layer=3)

A new editor is one file and one line here; the conformance test covers it at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from knowledge.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from editors.base import Editor
    from editors.statistics import MomentStore


@dataclass(frozen=True)
class EditorInfo:
    """What is shown of an editor before it is loaded."""

    name: str
    title: str
    paper: str  # arXiv number
    kind: str  # "delta": a weight change; "adapter": added parameters
    target: str  # "module:Class"
    summary: str
    batch: str  # what becomes of several edits in one call
    sequence: str  # what becomes of calls one after another


_EDITORS: dict[str, EditorInfo] = {
    info.name: info
    for info in (
        EditorInfo(
            "rome", "ROME", "2202.05262", "delta", "editors.rome:Rome",
            summary="one rank-one change, as released",
            batch="changes one after another, each exact; values are found without the other facts of the call",
            sequence="each on top of the earlier ones; as released it collapses after some tens of edits",
        ),
        EditorInfo(
            "r-rome", "R-ROME", "2403.07175", "delta", "editors.rome:RRome",
            summary="ROME with one key throughout",
            batch="changes one after another, each exact; in shallow models twenty facts at a time, as in a sequence",
            sequence="each on top of the earlier ones; in shallow models facts that fell are learned again",
        ),
        EditorInfo(
            "memit", "MEMIT", "2210.07229", "delta", "editors.memit:Memit",
            summary="many facts at once over several layers",
            batch="one least-squares change for all: what the method is for",
            sequence="batch on top of batch; nothing protects the facts of earlier batches",
        ),
        EditorInfo(
            "emmet", "EMMET", "2403.14236", "delta", "editors.emmet:Emmet",
            summary="a batch of facts, each met exactly",
            batch="one change that meets every fact exactly: what the method is for",
            sequence="batch on top of batch; nothing protects the facts of earlier batches",
        ),
        EditorInfo(
            "alphaedit", "AlphaEdit", "2410.02355", "delta", "editors.alphaedit:AlphaEdit",
            summary="MEMIT in directions that ordinary text hardly uses",
            batch="one least-squares change for all",
            sequence="batch on top of batch, keys of earlier facts protected: what the method is for",
        ),
        EditorInfo(
            "kn", "KN", "2104.08696", "delta", "editors.kn:KnowledgeNeurons",
            summary="rewrites the neurons that hold the fact",
            batch="the paper has none: each fact by itself, and the changes add up",
            sequence="the paper has none: neurons are found with the earlier edits on, and the changes add up",
        ),
        EditorInfo(
            "mend", "MEND", "2110.11309", "delta", "editors.mend:Mend",
            summary="a trained network reshapes the gradient",
            batch="the sum of the single changes, as the network was trained",
            sequence="the paper has none: gradients are taken in the model with its earlier edits",
        ),
        EditorInfo(
            "ke", "KE", "2104.08164", "delta", "editors.ke:KnowledgeEditor",
            summary="a trained network reads the edit",
            batch="the paper has none: gated gradients add up, what the network gives every edit alike counts once",
            sequence="the paper has none: as a batch; what the network gives every edit alike is not added again",
        ),
        EditorInfo(
            "ft-l", "FT-L", "2012.00363", "delta", "editors.ft:FtL",
            summary="fine-tuning of one layer, every entry bounded",
            batch="trained jointly",
            sequence="trained on top of the earlier ones, which nothing protects",
        ),
        EditorInfo(
            "ft-m", "FT-M", "2308.07269", "delta", "editors.ft:FtM",
            summary="fine-tuning of one layer on the target tokens",
            batch="trained jointly",
            sequence="trained on top of the earlier ones, which nothing protects",
        ),
        EditorInfo(
            "lora", "LoRA", "2106.09685", "delta", "editors.lora:Lora",
            summary="low-rank change of the attention, by peft",
            batch="one adapter, trained jointly",
            sequence="an adapter on top of the earlier ones, which nothing protects",
        ),
        EditorInfo(
            "grace", "GRACE", "2211.11031", "adapter", "editors.grace:Grace",
            summary="a codebook beside one layer",
            batch="the paper has none: values are found together, entries settled one after another",
            sequence="an entry for each edit, radii cut where answers differ: what the method is for",
        ),
        EditorInfo(
            "t-patcher", "T-Patcher", "2301.09785", "adapter", "editors.tpatcher:TPatcher",
            summary="a neuron for each mistake",
            batch="a neuron for each mistake of each fact, trained side by side",
            sequence="neurons beside the earlier ones, trained on the mistakes that are left: what the method is for",
        ),
        EditorInfo(
            "calinet", "CaliNET", "2210.03329", "adapter", "editors.calinet:CaliNet",
            summary="a side net for a batch of facts",
            batch="one net for all: what the method is for; it is undone as a whole",
            sequence="the paper has none: a net of its own for each call, beside the earlier ones",
        ),
    )
}  # fmt: skip

DEFAULT = "r-rome"


def available() -> dict[str, EditorInfo]:
    """All editors by name, in the order in which they are shown."""
    return dict(_EDITORS)


def get_editor(
    name: str, *, moments: MomentStore | None = None, refuse_known: bool = True, **overrides: Any
) -> Editor[Any]:
    """The editor of that name.

    Args:
        moments: a shared store of second moments; without one the editor makes its own from the default corpus.
        refuse_known: refuse an edit whose target the model already answers.
        overrides: settings by name (see the editor's settings class).

    Raises:
        UnknownName: no such editor, or no such setting.
    """
    key = name.lower().replace("_", "-")
    if key not in _EDITORS:
        raise UnknownName("editor", name, _EDITORS)
    module, _, cls = _EDITORS[key].target.partition(":")
    editor: Editor[Any] = getattr(import_module(module), cls)(moments=moments, refuse_known=refuse_known, **overrides)
    return editor


def parsed_settings(given: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as settings of an editor; values as JSON, lists as tuples.

    Raises:
        InvalidInput: not of that form.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            parsed = json.loads(value)
        except ValueError:
            equals = ""
        if not equals or isinstance(parsed, dict):
            raise InvalidInput(
                f"{text!r} is no setting. Write NAME=VALUE with a number, true or a list: prefixes=5, layers=[1,2]."
            )
        found[name.strip()] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found
