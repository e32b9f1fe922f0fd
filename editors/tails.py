"""The layers above an edited one, run only from the changed position on.

    tails = Tails(suffix, starts)
    states = tails.read(delta, rows, which, at)     # (wanted, hidden) under the final norm

What stands before the change keeps its hidden states, so attention there reads keys and values that were computed once.
Tails of about the same length go together wherever they begin: each row is moved so that its change comes first, and
masks and position tables are moved with it. Behind ten words of prefix a tail is less than half of a row.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from editors.moves import Move, of_rows
from editors.passes import Suffix, block, hidden_of

_CACHE_NAMES = ("past_key_values", "layer_past")  # what blocks of the known families call their cache
_STEP = 4  # tails go together whose lengths, rounded up to a multiple of this, are equal
_FOREIGN = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError)  # of a family unlike the others


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


@dataclass
class _Group:
    """Rows with tails of about the same length.

    Attributes:
        rows: (n,) their numbers.
        hidden: (n, width, hidden), what goes into the first layer above the change.
        kept: for each layer keys and values (n, heads, before, size); what is not before a row's change is masked.
        calls: for each layer the named arguments of its block.
    """

    rows: Tensor
    hidden: Tensor
    kept: dict[int, tuple[Tensor, Tensor]]
    calls: dict[int, dict[str, Any]]
    _some: tuple[Tensor, _Group] | None = field(default=None, repr=False)

    def of(self, members: Tensor) -> _Group:
        """Only these of the rows, numbers in the group; remembered, since the same are asked for step after step."""
        if len(members) == len(self.rows):
            return self
        if self._some is None or not torch.equal(self._some[0], members):
            self._some = None  # not both at once in memory
            count = len(self.rows)
            kept = {index: (keys[members], values[members]) for index, (keys, values) in self.kept.items()}
            calls = {
                index: {name: of_rows(name, value, members, count) for name, value in call.items()}
                for index, call in self.calls.items()
            }
            self._some = members, _Group(self.rows[members], self.hidden[members], kept, calls)
        return self._some[1]


class Tails:
    """Keys and values of all layers above ``suffix.layer``, without any change.

    Args:
        starts: (rows,) the position of each row that will be changed.

    Attributes:
        still: (rows, time, hidden) under the final norm, without any change.
        usable: false for a family whose blocks cannot be run from the middle; :meth:`read` runs whole rows then.
    """

    def __init__(self, suffix: Suffix, starts: Tensor) -> None:
        self.suffix, self.starts = suffix, starts
        self.layers = range(suffix.layer + 1, suffix.lm.num_layers)
        self.rows, self.time = suffix.mask.shape
        self.groups: list[_Group] = []
        try:
            self.still, kept = self._whole()
            self.usable = suffix.additive and len(kept) == len(self.layers)
            if self.usable:
                self.groups = self._groups(kept)
                self.usable = all(self._agrees(group) for group in self.groups)
        except _FOREIGN:  # this family's arguments cannot be moved as here; whole rows do
            self.usable = False
            every = torch.arange(self.rows, device=suffix.hidden.device)
            with torch.no_grad():
                self.still = suffix.with_change(torch.zeros_like(suffix.values), every)
        if not self.usable:
            self.groups = []

    def _whole(self) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
        """The last hidden states of whole rows, and each layer's keys and values."""
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        every = torch.arange(self.rows, device=self.suffix.hidden.device)
        hidden = self.suffix.hidden
        with torch.no_grad():
            for index in self.layers:
                keep = _Keep()
                hidden = self._block(hidden, index, self._named(index, every), keep)
                if keep.taken is not None:
                    kept[index] = keep.taken
        return hidden, kept

    def _groups(self, kept: dict[int, tuple[Tensor, Tensor]]) -> list[_Group]:
        lengths = self.suffix.mask.sum(1) - self.starts
        sizes = lengths.add(_STEP - 1).div(_STEP, rounding_mode="floor")
        found: list[_Group] = []
        for size in sizes.unique().tolist():
            rows = (sizes == size).nonzero()[:, 0]
            move = Move(self.starts[rows], int(lengths[rows].max()), self.time)
            before = slice(0, move.before)
            found.append(
                _Group(
                    rows,
                    move.along(self.suffix.hidden[rows]),
                    {index: (keys[rows, :, before], values[rows, :, before]) for index, (keys, values) in kept.items()},
                    {index: move.arguments(self._named(index, rows)) for index in self.layers},
                )
            )
        return found

    def _agrees(self, group: _Group) -> bool:
        """Tails without a change must come out as the whole rows did: those moved least and furthest are looked at."""
        starts, lengths = self.starts[group.rows], self.suffix.mask[group.rows].sum(1) - self.starts[group.rows]
        told = [starts.argmin(), starts.argmax(), lengths.argmin(), lengths.argmax()]
        few = group.of(torch.stack(told).unique())
        with torch.no_grad():
            tail = self._run(few.hidden, few).float()
        move = Move(self.starts[few.rows], tail.shape[1], self.time)
        real = move.along(self.suffix.mask[few.rows].unsqueeze(-1))[..., 0] & move.inside
        whole = move.along(self.still[few.rows]).float()
        gap, size = (tail - whole).norm(dim=-1)[real], whole.norm(dim=-1)[real]
        return bool((gap <= (1e-4 if self.still.dtype == torch.float32 else 0.05) * size).all())

    def read(self, delta: Tensor, rows: Tensor, which: Tensor, at: Tensor) -> Tensor:
        """Hidden states under the final norm with ``delta`` (rows, out) added where each row's change starts.

        Args:
            which: (wanted,) indices into ``rows``.
            at: (wanted,) positions in them, none before the change.

        Returns:
            (wanted, hidden); gradients flow to ``delta``.
        """
        if not self.usable:
            return self.suffix.above(delta, self.starts[rows], rows)[which, at]
        found: list[Tensor] = []
        order: list[Tensor] = []
        given = torch.full((self.rows,), -1, device=rows.device)
        given[rows] = torch.arange(len(rows), device=rows.device)
        member = torch.full((self.rows,), -1, device=rows.device)
        for group in self.groups:
            here = (given[group.rows] >= 0).nonzero()[:, 0]
            member.fill_(-1)
            member[group.rows[here]] = torch.arange(len(here), device=rows.device)
            wanted = (member[rows[which]] >= 0).nonzero()[:, 0]
            if not len(wanted):
                continue
            some = group.of(here)
            first = some.hidden[:, :1] + delta[given[some.rows], None].to(some.hidden)
            states = self._run(torch.cat([first, some.hidden[:, 1:]], 1), some)
            asked = rows[which[wanted]]
            found.append(states[member[asked], at[wanted] - self.starts[asked]])
            order.append(wanted)
        return torch.cat(found)[torch.cat(order).argsort()]

    def _run(self, hidden: Tensor, group: _Group) -> Tensor:
        for index in self.layers:
            hidden = self._block(hidden, index, group.calls[index], _Before(*group.kept[index]))
        return hidden

    def _named(self, index: int, rows: Tensor) -> dict[str, Any]:
        """What a block was called with behind its hidden states, by name, for some of the rows."""
        names = list(inspect.signature(type(block(self.suffix.lm, index)).forward).parameters)[2:]
        arguments, kwargs = self.suffix.call(index, rows)
        named = {**dict(zip(names, arguments, strict=False)), **kwargs}
        return {**named, **{name: None for name in _CACHE_NAMES if name in names}}

    def _block(self, hidden: Tensor, index: int, named: dict[str, Any], cache: Any) -> Tensor:
        given = {name: cache if name in _CACHE_NAMES else value for name, value in named.items()}
        return hidden_of(block(self.suffix.lm, index)(hidden, **given))
