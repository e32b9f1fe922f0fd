"""Overlays and prompts that several tests use."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from language_model import AdapterModule, Dense, LanguageModel, LowRank, Overlay, current_context, register_adapter
from language_model.architectures import is_in_out, weight_in_out
from language_model.hooks import HookBoard

PROMPTS = [
    "The Eiffel Tower is located in",
    "Where is Big Ben?",
    "Rome is the capital of Italy. The capital of France is",
]


def noise(shape: tuple[int, ...], seed: int, scale: float = 0.5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def low_rank(lm: LanguageModel, layer: int = 1, seed: int = 0, scale: float = 0.5) -> Overlay:
    """A strong rank-2 change of one down-projection."""
    name = lm.architecture.down(layer)
    width_in, width_out = weight_in_out(lm.module(name)).shape
    return Overlay({name: (LowRank(noise((width_in, 2), seed, scale), noise((2, width_out), seed + 1, scale)),)})


def as_dense(overlay: Overlay) -> Overlay:
    return Overlay({name: (Dense(overlay.delta(name)),) for name in overlay.modules})  # type: ignore[arg-type]


def written(lm: LanguageModel, overlay: Overlay) -> LanguageModel:
    """A copy of the model into whose weights the overlay was really written."""
    model = copy.deepcopy(lm.model)
    copied = LanguageModel(model, lm.tokenizer, lm.name)
    for name in overlay.modules:
        module = copied.module(name)
        delta = overlay.delta(name)
        assert delta is not None
        module.weight.data += delta if is_in_out(module) else delta.T  # type: ignore[operator, union-attr]
    return copied


def logits(lm: LanguageModel, prompts: list[str], **options: Any) -> Tensor:
    with torch.no_grad():
        return lm.forward(lm.batch(prompts), **options)


def hook_count(board: HookBoard) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in board._modules.values())


@register_adapter("test-shift")
class Shift(AdapterModule):
    """Adds a vector to the output everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.vector = torch.nn.Parameter(torch.zeros(width), requires_grad=False)

    def config(self) -> dict[str, Any]:
        return {"width": self.width}

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        return output + self.vector


@register_adapter("test-keyed")
class Keyed(AdapterModule):
    """Like GRACE: the prompt's last token decides, and what it decided holds through the cached steps."""

    def __init__(self, width_in: int, width_out: int, radius: float = 1e-3) -> None:
        super().__init__()
        self.width_in, self.width_out, self.radius = width_in, width_out, radius
        self.register_buffer("key", torch.zeros(width_in))
        self.register_buffer("value", torch.zeros(width_out))
        self.seen: list[tuple[int, bool, list[int], list[int]]] = []

    def config(self) -> dict[str, Any]:
        return {"width_in": self.width_in, "width_out": self.width_out, "radius": self.radius}

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        context = current_context()
        self.seen.append((context.step, context.is_decoding, context.rows.tolist(), context.last_prompt.tolist()))
        places = torch.arange(input.shape[1])
        if context.is_decoding:
            hit = context.state["hit"]
            active = hit[:, None].expand(-1, input.shape[1])
        else:
            keys = input[torch.arange(len(context)), context.last_prompt]
            hit = (keys - self.key).norm(dim=-1) < self.radius  # type: ignore[operator]
            context.state["hit"] = hit
            active = hit[:, None] & (places[None] >= context.last_prompt[:, None])
        return torch.where(active[..., None], self.value, output)  # type: ignore[arg-type]
