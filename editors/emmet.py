"""EMMET (2403.14236): ROME's equality constraint for a batch of facts.

    overlay = Emmet().edit(lm, edits)

Of all changes that give every key its value exactly, K^T delta = R, the one that disturbs ordinary keys least:

    delta = C^-1 K (K^T C^-1 K)^-1 R                                           (2403.14236, eq. 8, as (in, out))

One edit gives ROME's formula. Two edits whose keys point the same way ask for the impossible: the matrix is then
singular, and the batch is refused instead of answered with enormous weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.base import EditRefused, Job
from editors.memit import Memit, MemitSettings
from editors.passes import key_width
from editors.presets import canonical_name
from editors.rome import PRESETS as ROME_PRESETS
from editors.rome import SCALED as ROME_SCALED
from editors.statistics import SecondMoment
from editors.values import check_layer
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Overlay

_SINGULAR = 1e-10  # smallest eigenvalue over the largest of K^T C^-1 K with unit diagonal


@dataclass(frozen=True)
class EmmetSettings(MemitSettings):
    """As MEMIT's, on one layer: an exact constraint needs no second one. ``weight`` is not used."""


class Emmet(Memit):
    """Batch editing under an equality constraint."""

    name: ClassVar[str] = "emmet"
    title: ClassVar[str] = "EMMET"
    paper: ClassVar[str] = "2403.14236"
    Settings = EmmetSettings
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"layers": (preset["layer"],)} for name, preset in ROME_PRESETS.items()
    }

    SCALED: ClassVar[frozenset[str]] = ROME_SCALED

    def settings(self, lm: LanguageModel) -> MemitSettings:
        preset = self.PRESETS.get(canonical_name(lm) or "", {})
        layers = self.overrides.get("layers") or preset.get("layers") or (self.derived_layer(lm).layer,)
        return replace(super().settings(lm), layers=layers)

    def check(
        self, lm: LanguageModel, edits: Sequence[Edit], *, base: Overlay | None = None, earlier: Sequence[Edit] = ()
    ) -> None:
        """Refuses more edits than the layer has inputs too, and a layer that cannot be edited."""
        layers = self.settings(lm).layers
        assert layers is not None
        for layer in layers:
            check_layer(lm, layer)
        width = min(key_width(lm, layer) for layer in layers)
        if len(edits) > width:
            raise EditRefused(
                f"{len(edits)} edits cannot all hold exactly in a layer of {width} inputs. "
                "Make smaller batches, or use MEMIT, which trades exactness for size."
            )
        super().check(lm, edits, base=base, earlier=earlier)

    def change(
        self, job: Job, settings: MemitSettings, layer: int, moment: SecondMoment, keys: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        return equality_factors(moment, keys.T, rest)


def equality_factors(moment: SecondMoment, keys: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """delta = C^-1 K (K^T C^-1 K)^-1 R as factors, float64.

    Args:
        keys: (in, edits).
        rest: (edits, out).

    Raises:
        EditRefused: keys are linearly dependent.
    """
    solved = moment.solve(keys)
    gram = keys.T @ solved
    scale = gram.diagonal().sqrt()
    unit = gram / scale[:, None] / scale[None, :]
    values = torch.linalg.eigvalsh(unit)
    if values[0] < _SINGULAR * values[-1]:
        raise EditRefused(
            "Two edits of this batch have the same key, so they cannot both hold exactly. Leave out repeated subjects, "
            "or use MEMIT."
        )
    return solved, torch.linalg.solve(unit, rest / scale[:, None]) / scale[:, None]
