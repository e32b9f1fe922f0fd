"""What an adapter may know about the forward pass that it is part of.

context = current_context()
if context.step == 0:                                   # the whole prompt is in this pass
    key = input[range(len(context)), context.last_prompt]
    context.state["key"] = key                          # remembered for the cached steps of this generation
else:
    key = context.state["key"]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ForwardContext:
    """One forward pass, as seen by one adapter: only the rows that it serves.

    Attributes:
        rows: (n,) int64, numbers of these rows in the whole batch.
        attention_mask: (n, cached + positions) int64, 1 for real tokens, 0 for padding; None in a pass that was not
            started through :class:`~language_model.model.LanguageModel` and had no mask.
        last_prompt: (n,) int64, index of the prompt's last token among this pass's positions, -1 where it lies in the
            cache already. In scoring, the target's tokens follow it in the same pass.
        step: 0 when the prompt is in this pass, k in the k-th cached step after it.
        state: empty at step 0, the same object in all steps of one generation; private to one adapter of one overlay.
    """

    rows: Tensor
    attention_mask: Tensor | None
    last_prompt: Tensor
    step: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def is_decoding(self) -> bool:
        """True in a cached step: this pass holds one new token a row, and the prompt is in the cache."""
        return self.step > 0


_CURRENT: ContextVar[ForwardContext | None] = ContextVar("palimpsest_forward_context", default=None)


def current_context() -> ForwardContext:
    """The context of the running adapter.

    Raises:
        RuntimeError: called from outside an adapter's ``forward``.
    """
    context = _CURRENT.get()
    if context is None:
        raise RuntimeError("current_context() is only defined while an adapter of an overlay runs.")
    return context


@contextmanager
def use_context(context: ForwardContext) -> Iterator[None]:
    """Makes ``context`` the current one; for the hooks and for tests of adapters."""
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)
