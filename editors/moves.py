"""Moving what belongs to whole rows so that each row's change comes first (:mod:`editors.tails`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FOLDED = "alibi"  # BLOOM's bias: the heads are folded into the rows


def of_rows(name: str, value: Any, members: Tensor, rows: int) -> Any:
    """Some rows of a block's argument that has ``rows`` of them; an argument without rows as it is."""
    if isinstance(value, tuple | list):
        return type(value)(of_rows(name, item, members, rows) for item in value)
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    if name == FOLDED and value.shape[0] % rows == 0:
        return value.unflatten(0, (rows, -1))[members].flatten(0, 1)
    return value[members] if value.shape[0] == rows else value


class Move:
    """Takes what belongs to whole rows to their tails.

    Args:
        starts: (n,) where the tails begin.
        width: positions of a tail; beyond ``time`` the last position is repeated.
        time: positions of a row.
    """

    def __init__(self, starts: Tensor, width: int, time: int) -> None:
        self.time, self.before = time, int(starts.max())
        place = starts[:, None] + torch.arange(width, device=starts.device)
        self.inside = place < time
        self.place = place.clamp_max(time - 1)  # (n, width)
        earlier = torch.arange(self.before, device=starts.device) < starts[:, None]  # (n, before)
        causal = torch.ones(width, width, dtype=torch.bool, device=starts.device).tril()
        self.visible = torch.cat(
            [earlier[:, None].expand(-1, width, -1), causal.expand(len(starts), -1, -1)], -1
        ).unsqueeze(1)  # (n, 1, width, before + width)

    def along(self, value: Tensor) -> Tensor:
        """(n or 1, time, d) to (n, width, d)."""
        whole = value.expand(len(self.place), -1, -1)
        return whole.gather(1, self.place[..., None].expand(-1, -1, whole.shape[-1]))

    def arguments(self, named: dict[str, Any]) -> dict[str, Any]:
        """A block's arguments by name, moved.

        Raises:
            ValueError: one has a shape that is not known to belong to positions.
        """
        moved = {name: self._argument(name, value) for name, value in named.items()}
        if moved.get("attention_mask") is None:  # the kernel would take the tail for a row of its own
            moved["attention_mask"] = self.visible
        return moved

    def _argument(self, name: str, value: Any) -> Any:
        """Masks, positions and tables have the time in them; everything else stays as it is."""
        if isinstance(value, tuple | list):
            return type(value)(self._argument(name, item) for item in value)
        if not isinstance(value, Tensor) or self.time not in value.shape:
            return value
        if value.ndim == 4 and value.shape[-2:] == (self.time, self.time):
            return self._mask(value)
        if name == FOLDED and value.shape[1:] == (1, self.time):
            return self._bias(value)
        if value.ndim == 3 and value.shape[1] == self.time:
            return self.along(value)
        if value.ndim == 2 and value.shape[1] == self.time:
            return self.along(value[..., None])[..., 0]
        raise ValueError(f"an argument of shape {tuple(value.shape)} is not known to belong to positions")

    def _bias(self, value: Tensor) -> Tensor:
        """BLOOM's bias for every key, the heads folded into the rows: (n heads, 1, time)."""
        whole = value.unflatten(0, (len(self.place), -1))
        tail = whole.gather(3, self.place[:, None, None, :].expand(-1, whole.shape[1], 1, -1))
        return torch.cat([whole[..., : self.before], tail], -1).flatten(0, 1)

    def _mask(self, value: Tensor) -> Tensor:
        whole = value.expand(len(self.place), -1, -1, -1)
        heads = whole.shape[1]
        asking = whole.gather(2, self.place[:, None, :, None].expand(-1, heads, -1, self.time))
        tail = asking.gather(3, self.place[:, None, None, :].expand(-1, heads, asking.shape[2], -1))
        mask = torch.cat([asking[..., : self.before], tail], -1)
        if mask.dtype == torch.bool:
            return mask & self.visible
        return mask.masked_fill(~self.visible, torch.finfo(mask.dtype).min)
