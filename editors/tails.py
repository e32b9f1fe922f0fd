"""The layers above an edited one, run only from the changed position on.

    tails = Tails(suffix)
    states = tails.read(delta, subjects, rows, which, at)     # (wanted, hidden) under the final norm

What stands before the change keeps its hidden states, so attention there reads keys and values that were computed once.
Rows that change at the same position go together; nothing is computed behind the last position that is asked for.
Behind ten words of prefix this leaves less than half of a row.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from editors.passes import Suffix, block, hidden_of

_CACHE_NAMES = ("past_key_values", "layer_past")  # what blocks of the known families call their cache


class _Keep:
    """Stands where a block expects a cache, and keeps the keys and values that it is given."""

    def __init__(self) -> None:
        self.taken: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.taken = keys, values
        return keys, values


class _Before:
    """Stands where a block expects a cache, and puts what was kept before the new keys and values."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, keys], -2), torch.cat([self.values, values], -2)


class Tails:
    """Keys and values of all layers above ``suffix.layer``, without any change.

    Attributes:
        still: (rows, time, hidden) under the final norm, without any change.
        usable: false for a family whose blocks cannot be run from the middle; :meth:`read` runs whole rows then.
    """

    def __init__(self, suffix: Suffix) -> None:
        self.suffix = suffix
        self.layers = range(suffix.layer + 1, suffix.lm.num_layers)
        self.rows, self.time = suffix.mask.shape
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        every = torch.arange(self.rows, device=suffix.hidden.device)
        with torch.no_grad():
            hidden = suffix.hidden
            for index in self.layers:
                keep = _Keep()
                hidden = self._block(hidden, index, every, keep, (0, self.time))
                if keep.taken is not None:
                    self.kept[index] = keep.taken
            self.still = hidden
            longest = suffix.mask.sum(1).argmax()[None]
            self.usable = suffix.additive and len(self.kept) == len(self.layers) and self._agrees(longest)

    def _agrees(self, rows: Tensor) -> bool:
        """A tail without a change must come out as the whole row did."""
        middle = self.time // 2
        if not middle:
            return False
        try:
            tail = self._run(self.suffix.hidden[rows, middle:], middle, rows)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False  # this family's arguments cannot be cut as here; whole rows do
        whole = self.still[rows, middle:].float()
        gap = (tail.float() - whole).abs().max()
        return bool(gap <= (1e-4 if tail.dtype == torch.float32 else 0.05) * whole.abs().max())

    def read(self, delta: Tensor, positions: Tensor, rows: Tensor, which: Tensor, at: Tensor) -> Tensor:
        """Hidden states under the final norm with ``delta`` (rows, out) added at ``positions`` (rows,).

        Args:
            which: (wanted,) indices into ``rows``.
            at: (wanted,) positions in them, none before the change.

        Returns:
            (wanted, hidden); gradients flow to ``delta``.
        """
        if not self.usable:
            return self.suffix.above(delta, positions, rows)[which, at]
        found: list[Tensor] = []
        order: list[Tensor] = []
        place = torch.full((len(rows),), -1, device=rows.device)
        for position in positions.unique().tolist():
            members = (positions == position).nonzero()[:, 0]
            place.fill_(-1)
            place[members] = torch.arange(len(members), device=rows.device)
            wanted = (place[which] >= 0).nonzero()[:, 0]
            if not len(wanted):
                continue
            end = int(at[wanted].max()) + 1
            hidden = self.suffix.hidden[rows[members], position:end]
            change = torch.zeros_like(hidden)
            change[:, 0] = delta[members].to(hidden)
            states = self._run(hidden + change, position, rows[members])
            found.append(states[place[which[wanted]], at[wanted] - position])
            order.append(wanted)
        return torch.cat(found)[torch.cat(order).argsort()]

    def _run(self, hidden: Tensor, start: int, rows: Tensor) -> Tensor:
        end = start + hidden.shape[1]
        for index in self.layers:
            keys, values = (part[rows, :, :start] for part in self.kept[index])
            hidden = self._block(hidden, index, rows, _Before(keys, values), (start, end))
        return hidden

    def _block(self, hidden: Tensor, index: int, rows: Tensor, cache: Any, span: tuple[int, int]) -> Tensor:
        """One block on positions ``span`` of some rows, with the arguments that its whole pass had."""
        module = block(self.suffix.lm, index)
        names = list(inspect.signature(type(module).forward).parameters)[2:]  # behind self and the hidden states
        arguments, kwargs = self.suffix.call(index, rows)
        named = {**dict(zip(names, arguments, strict=False)), **kwargs}
        given = {name: self._cut(value, span) for name, value in named.items()}
        if span[0] and given.get("attention_mask") is None:  # the kernel would take the tail for a row of its own
            given["attention_mask"] = self._causal(span, hidden)
        given |= {name: cache for name in _CACHE_NAMES if name in names}
        return hidden_of(module(hidden, **given))

    def _cut(self, value: Any, span: tuple[int, int]) -> Any:
        """An argument of a whole pass for the queries ``span``: masks, positions and tables have the time in them."""
        start, end = span
        if isinstance(value, tuple | list):
            return type(value)(self._cut(item, span) for item in value)
        if not isinstance(value, Tensor) or span == (0, self.time):
            return value
        if value.ndim == 4 and value.shape[-2:] == (self.time, self.time):
            return value[..., start:end, :end]
        if value.ndim in (2, 3) and value.shape[1] == self.time:
            return value[:, start:end]
        if value.ndim == 1 and value.shape[0] == self.time:
            return value[start:end]
        return value[..., :end] if value.shape[-1] == self.time else value  # ALiBi: a bias for every key

    def _causal(self, span: tuple[int, int], like: Tensor) -> Tensor:
        start, end = span
        return torch.ones(end - start, end, dtype=torch.bool, device=like.device).tril(start)[None, None]
