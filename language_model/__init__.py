"""The language model: load it, talk to it, score it, look inside it, and lay edits over it without writing to it.

    from language_model import LanguageModel, LowRank, Overlay

    lm = LanguageModel.load("bundled")
    lm.generate([lm.chat("Where is the Eiffel Tower?")])
    with lm.overlaid(overlay):
        ...

Names are imported on first use, so that importing a light module of this package (``prompts``) loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from language_model.adapters import AdapterModule, register_adapter
    from language_model.architectures import Architecture, weight_in_out
    from language_model.context import ForwardContext, current_context
    from language_model.model import LanguageModel, Prompt
    from language_model.overlay import Adapter, Dense, LowRank, Overlay, Part
    from language_model.scoring import TargetScore
    from language_model.tracing import Trace

_HOME = {
    "Adapter": "overlay",
    "AdapterModule": "adapters",
    "Architecture": "architectures",
    "Dense": "overlay",
    "ForwardContext": "context",
    "LanguageModel": "model",
    "LowRank": "overlay",
    "Overlay": "overlay",
    "Part": "overlay",
    "Prompt": "model",
    "TargetScore": "scoring",
    "Trace": "tracing",
    "current_context": "context",
    "register_adapter": "adapters",
    "weight_in_out": "architectures",
}

__all__ = [
    "Adapter",
    "AdapterModule",
    "Architecture",
    "Dense",
    "ForwardContext",
    "LanguageModel",
    "LowRank",
    "Overlay",
    "Part",
    "Prompt",
    "TargetScore",
    "Trace",
    "current_context",
    "register_adapter",
    "weight_in_out",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
