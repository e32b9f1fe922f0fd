"""AlphaEdit (2410.02355): MEMIT's least squares, kept inside the null space of ordinary keys.

    overlay = AlphaEdit().edit(lm, edits, earlier=facts_already_written)

With P the projector on directions that ordinary text hardly uses (eigenvectors of C with small eigenvalues), K_p the
keys of facts written before and K the new ones,

    delta = R K^T P (K_p K_p^T P + K K^T P + L2 I)^-1                          (2410.02355, eq. 14)

The keys of earlier facts are read again from what is active now, so a fact that was undone protects nothing.
Released: eigenvalues under 0.02 and L2 = 10, which fit one model's scale; here both are shares of the spectrum.

A small model has no wide null space: in our bundled model less than a quarter of a layer's inputs hold 2 % of the
ordinary keys' energy, and as many facts fill them up. So in a shallow model the space has soft edges: instead of
forbidding used directions, each is charged by how much it is used, delta = R K^T (w K_p K_p^T + K K^T + lambda C)^-1,
which is the same aim with a price in place of the projector. And after a batch, the facts that fell are learned again
(:mod:`editors.rehearsal`). ``soft=False, repair=0`` is the published way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from editors.base import Job
from editors.earlier import earlier_keys, spared
from editors.footprint import Footprint, Sizes
from editors.memit import VALUES as MEMIT_VALUES
from editors.memit import Memit, MemitSettings
from editors.presets import SHALLOW, repaired_every
from editors.rehearsal import REHEARSAL, RehearsalSettings, rehearsal_stage, rehearsed
from editors.statistics import SecondMoment
from editors.values import ValueSettings
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Overlay

VALUES = replace(MEMIT_VALUES, rule="steepest", stop_loss=0.01, stride=0.05)
# The price of the soft form, lambda for each input of the layer: so much for each fact so far, within bounds. Few facts
# may change much, so that other wordings come right too (on our bundled model generality is 96 % at 0.1, 83 % at 0.8);
# of many, each has to be light (with one round of repairs 94.5 % of 400 facts held at 0.8, 90 % at 0.3).
PRICE, LEAST, MOST = 0.004, 0.1, 0.8


@dataclass(frozen=True)
class AlphaEditSettings(MemitSettings):
    """MEMIT's settings and the null space. ``weight`` is not used."""

    values: ValueSettings = VALUES
    energy: float = 0.02  # the null space is the widest that holds at most this share of E|k|^2
    l2: float = 1.0  # in units of the ordinary key's mean square inside the null space, tr(P C)
    soft: bool | None = None  # no hard null space but a price on what ordinary keys use; None: in shallow models
    price: float | None = None  # in the soft form: lambda for each input; None: grows with the facts (``PRICE``)
    protect: float = 0.0005  # in the soft form: what an earlier fact's key weighs beside all ordinary ones
    repair: int | None = None  # after so many facts those that fell are learned again; 0: never
    rehearsal: RehearsalSettings = REHEARSAL


class AlphaEdit(Memit):
    """Null-space constrained editing."""

    name: ClassVar[str] = "alphaedit"
    title: ClassVar[str] = "AlphaEdit"
    paper: ClassVar[str] = "2410.02355"
    Settings = AlphaEditSettings

    def settings(self, lm: LanguageModel) -> MemitSettings:
        found = super().settings(lm)
        assert isinstance(found, AlphaEditSettings)
        if found.soft is None:
            found = replace(found, soft=lm.num_layers <= SHALLOW)
        return replace(found, repair=repaired_every(lm, found.repair, 1))

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: MemitSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        assert isinstance(settings, AlphaEditSettings)
        assert settings.layers is not None
        found, sizes, layers = super().footprint(lm, edits, settings), Sizes(lm, edits), len(settings.layers)
        stages = (*found.stages, rehearsal_stage(sizes, layers)) if settings.repair else found.stages
        return Footprint((*found.kept, sizes.protecting(len(earlier), layers)), stages)

    def factors(self, settings: MemitSettings) -> int:
        assert isinstance(settings, AlphaEditSettings)
        return 2 if settings.repair and not settings.soft else 1  # eigenvectors for hard edges, or the Cholesky factor

    def compute(self, job: Job, settings: MemitSettings) -> Overlay:
        assert isinstance(settings, AlphaEditSettings)
        made = super().compute(job, settings)
        if not settings.repair:
            return made
        assert settings.layers is not None
        return rehearsed(
            job, made, settings.layers, self.moments, settings.rehearsal, every=settings.repair, seed=settings.seed
        )

    def change(
        self, job: Job, settings: MemitSettings, layer: int, moment: SecondMoment, keys: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(settings, AlphaEditSettings)
        earlier = earlier_keys(job, settings.layers or (layer,), layer)
        if settings.soft:
            price = settings.price
            if price is None:
                price = min(MOST, max(LEAST, PRICE * (len(job.earlier) + len(job.edits))))
            return soft_factors(moment, keys.T, earlier.T, rest, price * keys.shape[1], settings.protect)
        basis, power = null_space(moment, settings.energy)
        return null_space_factors(basis, keys.T, earlier.T, rest, settings.l2 * power)


def null_space(moment: SecondMoment, energy: float) -> tuple[Tensor, float]:
    """The directions of least use that together hold at most ``energy`` of the mean square of ordinary keys.

    Returns:
        an orthonormal basis (in, m), and the mean square that is inside it.
    """
    values, vectors = moment.spectrum
    inside = values.cumsum(0) / values.sum()
    width = max(1, int((inside <= energy).sum()))
    return vectors[:, :width], float(values[:width].sum())


def soft_factors(
    moment: SecondMoment, keys: Tensor, earlier: Tensor, rest: Tensor, price: float, protect: float
) -> tuple[Tensor, Tensor]:
    """delta = (price (C + protect K_p K_p^T) + K K^T)^-1 K R as factors, float64.

    Args:
        keys: (in, edits); earlier: (in, facts), possibly none.
        rest: (edits, out).

    Returns:
        u (in, edits) and v (edits, out).
    """
    directions = spared(moment, earlier.T, moment.solve(keys).T, protect)
    inner = directions @ keys
    inner.diagonal().add_(price)
    return directions.T, torch.linalg.solve(inner, rest)


def null_space_factors(basis: Tensor, keys: Tensor, earlier: Tensor, rest: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """delta of AlphaEdit as factors, float64.

    The change lies in the null space, delta = U Y with P = U U^T, and Y solves (A A^T + L2 I) Y = U^T K R with
    A = U^T [K_p K]. By the push-through identity only a matrix of the size of all facts is solved.

    Args:
        basis: (in, m), U.
        keys: (in, edits); earlier: (in, facts), possibly none.
        rest: (edits, out).

    Returns:
        u (in, edits) and v (edits, out).
    """
    new = basis.T @ keys
    every = new if earlier.numel() == 0 else torch.cat([basis.T @ earlier, new], 1)
    inner = every.T @ every
    inner.diagonal().add_(l2)
    solved = (new - every @ torch.linalg.solve(inner, every.T @ new)) / l2
    return basis @ solved, rest
