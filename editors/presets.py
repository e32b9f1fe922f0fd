"""Which published settings a model gets, and how a layer is derived for a model that no paper has tuned.

A model is recognised by its shape (family, layers, width), never by the name it was loaded under: a local folder has
no name, and a fine-tuned GPT-J is still best edited where GPT-J is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from editors.located import load_located
from language_model.model import LanguageModel

if TYPE_CHECKING:  # values imports base, and base imports this module
    from editors.values import ValueSettings

SHALLOW = 12  # layers

_SHAPES: dict[tuple[str, int, int], str] = {
    ("gpt2", 12, 768): "gpt2",
    ("gpt2", 24, 1024): "gpt2-medium",
    ("gpt2", 36, 1280): "gpt2-large",
    ("gpt2", 48, 1600): "gpt2-xl",
    ("gptj", 28, 4096): "gpt-j-6b",
    ("gpt_neox", 24, 1024): "pythia-410m",
    ("gpt_neox", 16, 2048): "pythia-1b",
    ("gpt_neox", 24, 2048): "pythia-1.4b",
    ("gpt_neox", 32, 2560): "pythia-2.8b",
    ("gpt_neox", 32, 4096): "pythia-6.9b",
    ("gpt_neox", 44, 6144): "gpt-neox-20b",
    ("llama", 32, 4096): "llama-7b",  # also Llama 3 and 3.1 8B: same depth, edited at the same layers
    ("llama", 40, 5120): "llama-13b",
    ("llama", 16, 2048): "llama-3.2-1b",
    ("llama", 28, 3072): "llama-3.2-3b",
    ("mistral", 32, 4096): "mistral-7b",
    ("qwen2", 24, 896): "qwen2.5-0.5b",
    ("qwen2", 28, 1536): "qwen2.5-1.5b",
    ("qwen2", 36, 2048): "qwen2.5-3b",
    ("qwen2", 28, 3584): "qwen2.5-7b",
    ("qwen3", 28, 1024): "qwen3-0.6b",
    ("qwen3", 28, 2048): "qwen3-1.7b",
    ("qwen3", 36, 2560): "qwen3-4b",
    ("qwen3", 36, 4096): "qwen3-8b",
}


def canonical_name(lm: LanguageModel) -> str | None:
    """The published name of a model of this shape, or None where no paper's settings apply."""
    return _SHAPES.get((lm.architecture.model_type, lm.num_layers, lm.hidden_size))


def middle_layer(lm: LanguageModel) -> int:
    """The layer to edit when no preset names one.

    Causal tracing puts the site that matters for a subject's facts early to mid depth: 17 of 48 (GPT-2 XL), 5 of 28
    (GPT-J), 5 of 32 (Llama). Shallow models need relatively more layers before the subject is read: our own
    measurements on models of 6 layers favour layer 3.
    """
    layers = lm.num_layers
    return max(0, min(layers - 2, layers // 2 if layers <= SHALLOW else round(0.3 * layers)))


@dataclass(frozen=True)
class DerivedLayer:
    """The layer to edit in a model that no paper has tuned.

    Attributes:
        why: how it was found, in words for the user.
    """

    layer: int
    traced: bool
    why: str


def derived_layer(lm: LanguageModel, folder: Path | None) -> DerivedLayer:
    """The layer that causal tracing found for this very model, where it was traced; otherwise :func:`middle_layer`.

    Args:
        folder: where ``python -m app locate`` keeps its results: beside the second moments.
    """
    found = load_located(lm, folder)
    if found is not None and found.telling:
        return DerivedLayer(found.layer, True, f"layer from causal tracing of this model ({found.facts} facts)")
    rule = "half of the depth" if lm.num_layers <= SHALLOW else "three tenths of the depth"
    missing = "has not been traced" if found is None else "was traced, but nothing came back at the subject"
    return DerivedLayer(
        middle_layer(lm),
        False,
        f"derived by rule, {rule}: no paper tuned this model, and it {missing} (python -m app locate --model NAME)",
    )


def patient(lm: LanguageModel, values: ValueSettings) -> ValueSettings:
    """The value search for a shallow model that no paper has tuned: more steps, and more room.

    With few layers above it, a change has to be larger to be heard: on our bundled model every tenth edit needs 40 to
    60 steps and 5 to 8 times |v|, where the published 25 and 4 stop short. Edits that are done earlier stop earlier.
    """
    if lm.num_layers > SHALLOW:
        return values
    return replace(
        values, steps=max(values.steps, 80), clamp=max(values.clamp, 8.0 if values.reference == "value" else 1.5)
    )


def repaired_every(lm: LanguageModel, repair: int | None, default: int) -> int:
    """After how many facts of a sequence those that fell are learned again: in shallow models unless set, since it
    takes gradients through the whole model and second moments of several layers.
    """
    if repair is not None:
        return repair
    return default if lm.num_layers <= SHALLOW else 0


def layer_window(lm: LanguageModel, *, ends_at: int | None = None) -> tuple[int, ...]:
    """The consecutive layers over which MEMIT and its successors spread an edit: 5 in deep models, 3 in shallow
    ones.
    """
    last = middle_layer(lm) if ends_at is None else ends_at
    width = 5 if lm.num_layers >= 24 else 3
    return tuple(range(max(0, last - width + 1), last + 1))
