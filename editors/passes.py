"""Partial passes through a model: the keys of a layer without what lies above it, the logits without what lies below.

    taken = capture(lm, rows, [3])[3]         # taken.keys (B, T, in), taken.values (B, T, out); stops after layer 3
    suffix = Suffix(lm, rows, 3)              # one pass; afterwards only what lies above layer 3 is run
    hidden = suffix.above(delta, subjects, chosen)
    logits = suffix.head(hidden[chosen, last])

Rows are padded on the right. Attention is causal, so padding changes nothing before it and needs no mask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from language_model.architectures import weight_in_out
from language_model.errors import OverlayMismatch
from language_model.model import LanguageModel


class _Enough(Exception):
    """Raised from a hook once everything asked for has been seen."""


@dataclass(frozen=True)
class Taken:
    """What went into and came out of one down-projection.

    Attributes:
        keys: (batch, time, in).
        values: (batch, time, out), with the active overlay's change.
        hidden: (batch, time, hidden), the output of the layer's whole block.
        mask: (batch, time) bool, False at padding.
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor
    mask: Tensor


def block(lm: LanguageModel, layer: int) -> nn.Module:
    return lm.module(lm.architecture.block(layer))


def down_projection(lm: LanguageModel, layer: int) -> nn.Module:
    """The feed-forward's last linear map at ``layer``: its input is the key, its output the value."""
    return lm.module(lm.architecture.down(layer))


def key_width(lm: LanguageModel, layer: int) -> int:
    """The number of inputs of the down-projection."""
    return int(weight_in_out(down_projection(lm, layer)).shape[0])


def pad(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token rows as (ids, mask), both (batch, time). Rows are filled up with their own last token, not with padding
    tokens, which some models warn about."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows])
    mask = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    return ids.to(lm.device), mask.to(lm.device)


@contextmanager
def hooked(*hooks: tuple[nn.Module, str, Callable[..., Any]]) -> Iterator[None]:
    """Hooks that see only the calling thread's passes and are gone afterwards, whatever happens."""
    owner = threading.get_ident()

    def only_here(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: function(*arguments) if threading.get_ident() == owner else None

    with ExitStack() as stack:
        for module, when, function in hooks:
            register = module.register_forward_pre_hook if when == "before" else module.register_forward_hook
            stack.callback(register(only_here(function), with_kwargs=True).remove)
        yield


def capture(
    lm: LanguageModel, rows: Sequence[Sequence[int]], layers: Sequence[int], *, cache: Cache | None = None
) -> dict[int, Taken]:
    """Inputs and outputs of the down-projections of ``layers``; nothing above the last of them is computed.

    Args:
        cache: keys and values of what stands before the rows, one entry a row; theirs are added to it.
    """
    ids, mask = pad(lm, rows)
    keys: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    hidden: dict[int, Tensor] = {}
    last = max(layers)

    def inside(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _kwargs: dict[str, Any], output: Tensor) -> None:
            keys[layer] = inputs[0].reshape(*mask.shape, -1)  # some families flatten (batch, time)
            values[layer] = output.reshape(*mask.shape, -1).clone()  # Falcon adds to it in place

        return hook

    def around(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, _kwargs: dict[str, Any], output: Any) -> None:
            hidden[layer] = hidden_of(output)
            if layer == last:
                raise _Enough

        return hook

    points = [(down_projection(lm, layer), "after", inside(layer)) for layer in layers]
    points += [(block(lm, layer), "after", around(layer)) for layer in layers]
    with hooked(*points), torch.no_grad(), suppress(_Enough):
        lm.run_model(input_ids=ids, use_cache=cache is not None, past_key_values=cache)
    return {layer: Taken(keys[layer], values[layer], hidden[layer], mask) for layer in layers}


def hidden_of(output: Any) -> Tensor:
    """A block's hidden state: some families return a tensor, some a tuple (trap: ``out[0]`` of a tensor is row 0)."""
    return output if isinstance(output, Tensor) else output[0]


class Suffix:
    """The layers from ``layer`` upwards, with everything below computed once.

    Args:
        rows: token rows.
        layer: the edited layer. A change is added to its down-projection's output.

    Attributes:
        input, hidden: (batch, time, hidden), what goes into and comes out of the edited block, without any change.
        read: (batch, time, in), what its feed-forward reads (for OPT, which has no module of it: the keys).
        keys, values: (batch, time, in) and (batch, time, out) of its down-projection.
        mask: (batch, time) bool, False at padding.
        additive: a change of the down-projection's output reaches the block's output as it is.
    """

    def __init__(self, lm: LanguageModel, rows: Sequence[Sequence[int]], layer: int) -> None:
        self.lm, self.layer = lm, layer
        ids, mask = pad(lm, rows)
        self._rows = len(rows)
        self._calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        taken: dict[str, Tensor] = {}

        def before(index: int) -> Callable[..., None]:
            def hook(_module: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self._calls[index] = inputs[1:], dict(kwargs)
                if index == layer:
                    taken["input"] = inputs[0].clone()
                if index == lm.num_layers - 1 and index > layer:
                    raise _Enough

            return hook

        def after_block(_module: nn.Module, _inputs: Any, _kwargs: Any, output: Any) -> None:
            taken["hidden"] = hidden_of(output).clone()
            if layer == lm.num_layers - 1:  # no logits of every token
                raise _Enough

        def before_mlp(_module: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            taken["read"] = (inputs[0] if inputs else kwargs["hidden_states"]).reshape(*mask.shape, -1).clone()

        def after_down(_module: nn.Module, inputs: tuple[Tensor, ...], _kwargs: Any, output: Tensor) -> None:
            taken["keys"] = inputs[0].reshape(*mask.shape, -1)
            taken["values"] = output.reshape(*mask.shape, -1).clone()

        points: list[tuple[nn.Module, str, Callable[..., Any]]] = [
            (block(lm, index), "before", before(index)) for index in range(layer, lm.num_layers)
        ]
        points += [(block(lm, layer), "after", after_block), (down_projection(lm, layer), "after", after_down)]
        points.append((lm.module(lm.architecture.mlp(layer)), "before", before_mlp))
        with hooked(*points), torch.no_grad(), suppress(_Enough):
            lm.run_model(input_ids=ids, use_cache=False)
        self.mask, self.read = mask, taken["read"]
        self.input, self.hidden = taken["input"], taken["hidden"]
        self.keys, self.values = taken["keys"], taken["values"]
        self.additive = self._is_additive()

    def _is_additive(self) -> bool:
        """Whether a change of the down-projection's output reaches the block's output as it is.

        True for most families; not where the feed-forward's output is normalised or scaled first (Gemma 2, OPT-350m).
        """
        generator = torch.Generator().manual_seed(0)
        nudge = torch.zeros_like(self.values[:1])
        nudge[0, 0] = torch.randn(nudge.shape[-1], generator=generator).to(nudge)
        nudge *= self.values[0, 0].float().norm() / nudge.float().norm()
        with torch.no_grad():
            changed = self._edited_block(nudge, torch.zeros(1, dtype=torch.long, device=nudge.device))
        gap = (changed[0, 0] - self.hidden[0, 0] - nudge[0, 0]).float().norm()
        return bool(gap < (1e-3 if nudge.dtype == torch.float32 else 0.1) * nudge.float().norm())

    def _edited_block(self, change: Tensor, rows: Tensor) -> Tensor:
        """The edited block run again with ``change`` (rows, time, out) added to its down-projection's output."""

        def add(_module: nn.Module, _inputs: Any, _kwargs: Any, output: Tensor) -> Tensor:
            return output + change.to(output).reshape(output.shape)

        with hooked((down_projection(self.lm, self.layer), "after", add)):
            return self._run(self.input[rows], self.layer, rows)

    def call(self, index: int, rows: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the block ``index`` was called with behind its hidden states, for some of the rows."""
        arguments, kwargs = self._calls[index]
        named = {name: self._pick(value, rows, name) for name, value in kwargs.items()}
        return tuple(self._pick(value, rows) for value in arguments), named

    def _run(self, hidden: Tensor, index: int, rows: Tensor) -> Tensor:
        arguments, named = self.call(index, rows)
        return hidden_of(block(self.lm, index)(hidden, *arguments, **named))

    def _pick(self, value: Any, rows: Tensor, name: str = "") -> Any:
        """The rows of a recorded argument (masks and position tables may have one row for the whole batch)."""
        if isinstance(value, Tensor):
            if name == "alibi" and value.shape[0] != self._rows:  # BLOOM folds the heads into the rows
                return value.unflatten(0, (self._rows, -1))[rows].flatten(0, 1)
            return value[rows] if value.ndim > 1 and value.shape[0] == self._rows and self._rows > 1 else value
        if isinstance(value, tuple | list):
            return type(value)(self._pick(item, rows) for item in value)
        return value

    def above(self, delta: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
        """The hidden state under the final norm with ``delta`` (rows, out) added at ``positions`` (rows,).

        Returns:
            (rows, time, hidden); gradients flow to ``delta``.
        """
        index = torch.arange(len(rows), device=rows.device)
        change = torch.zeros_like(self.values[rows])
        return self.with_change(change.index_put((index, positions), delta.to(change)), rows)

    def with_change(self, change: Tensor, rows: Tensor) -> Tensor:
        """The hidden state under the final norm with ``change`` (rows, time, out) added to the down-projection's
        output.
        """
        hidden = self.hidden[rows] + change.to(self.hidden) if self.additive else self._edited_block(change, rows)
        for index in range(self.layer + 1, self.lm.num_layers):
            hidden = self._run(hidden, index, rows)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits, float32, of hidden states (..., hidden) that come from :meth:`above`."""
        return head(self.lm, hidden)


def head(lm: LanguageModel, hidden: Tensor) -> Tensor:
    """Final norm and output embedding, with what some families do to the logits; float32."""
    with suppress(OverlayMismatch):  # some checkpoints have no final norm (OPT-350m)
        hidden = lm.module(lm.architecture.final_norm)(hidden)
    config = lm.model.config
    projection = getattr(getattr(getattr(lm.model, "model", None), "decoder", None), "project_out", None)
    if projection is not None:  # OPT-350m
        hidden = projection(hidden)
    logits: Tensor = lm.model.get_output_embeddings()(hidden).float()
    if getattr(config, "logit_scale", None):  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None):  # Granite
        logits = logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    return torch.tanh(logits / cap) * cap if cap else logits
