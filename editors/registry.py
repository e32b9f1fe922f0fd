"""The editors by name. Listing them loads no torch: a class is imported when it is asked for.

    available()                       # {"rome": EditorInfo(...), ...}
    editor = get_editor("r-rome", layer=3)

A new editor is one file and one line here; the conformance test covers it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from knowledge.errors import UnknownName

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
    summary: str
    target: str  # "module:Class"


def _info(name: str, title: str, paper: str, kind: str, target: str, summary: str) -> tuple[str, EditorInfo]:
    return name, EditorInfo(name, title, paper, kind, summary, target)


_EDITORS: dict[str, EditorInfo] = dict(
    [
        _info("rome", "ROME", "2202.05262", "delta", "editors.rome:Rome", "one rank-one change, as released"),
        _info("r-rome", "R-ROME", "2403.07175", "delta", "editors.rome:RRome", "ROME with one key throughout"),
        _info("memit", "MEMIT", "2210.07229", "delta", "editors.memit:Memit", "many facts at once over several layers"),
        _info("emmet", "EMMET", "2403.14236", "delta", "editors.emmet:Emmet", "a batch of facts, each met exactly"),
        _info(
            "alphaedit",
            "AlphaEdit",
            "2410.02355",
            "delta",
            "editors.alphaedit:AlphaEdit",
            "MEMIT in directions that ordinary text hardly uses",
        ),
        _info(
            "kn", "KN", "2104.08696", "delta", "editors.kn:KnowledgeNeurons", "rewrites the neurons that hold the fact"
        ),
        _info("mend", "MEND", "2110.11309", "delta", "editors.mend:Mend", "a trained network reshapes the gradient"),
        _info("ke", "KE", "2104.08164", "delta", "editors.ke:KnowledgeEditor", "a trained network reads the edit"),
        _info("ft-l", "FT-L", "2012.00363", "delta", "editors.ft:FtL", "fine-tuning of one layer, every entry bounded"),
        _info("ft-m", "FT-M", "2308.07269", "delta", "editors.ft:FtM", "fine-tuning of one layer on the target tokens"),
        _info("lora", "LoRA", "2106.09685", "delta", "editors.lora:Lora", "low-rank change of the attention, by peft"),
        _info("grace", "GRACE", "2211.11031", "adapter", "editors.grace:Grace", "a codebook beside one layer"),
        _info(
            "t-patcher", "T-Patcher", "2301.09785", "adapter", "editors.tpatcher:TPatcher", "a neuron for each mistake"
        ),
        _info(
            "calinet", "CaliNET", "2210.03329", "adapter", "editors.calinet:CaliNet", "a side net for a batch of facts"
        ),
    ]
)

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
