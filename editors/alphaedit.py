"""AlphaEdit (2410.02355): MEMIT's least squares, kept inside the null space of ordinary keys.

    overlay = AlphaEdit().edit(lm, edits, earlier=facts_already_written)

With P the projector on directions that ordinary text hardly uses (eigenvectors of C with small eigenvalues), K_p the
keys of facts written before and K the new ones,

    delta = R K^T P (K_p K_p^T P + K K^T P + L2 I)^-1                          (2410.02355, eq. 14)

The keys of earlier facts are read again from what is active now, so a fact that was undone protects nothing.
Released: eigenvalues under 0.02 and L2 = 10, which fit one model's scale; here both are shares of the spectrum.

A small model has no wide null space: in our bundled model less than a quarter of a layer's inputs hold 2 % of the
ordinary keys' energy, and as many facts fill them up. From there on each new fact needs a larger change than the last
one and the model breaks. So in a shallow model the space grows with the number of facts, which costs locality instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from editors.base import Job
from editors.keys import subject_activations
from editors.memit import Memit, MemitSettings
from editors.presets import SHALLOW
from editors.problems import build_problems
from editors.statistics import SecondMoment


@dataclass(frozen=True)
class AlphaEditSettings(MemitSettings):
    """MEMIT's settings and the null space."""

    energy: float = 0.02  # the null space is the widest that holds at most this share of E|k|^2
    room: int = 10  # in a shallow model: but this many directions for each fact, earlier ones too,
    most: float = 0.3  # or as many of them as hold at most this share
    l2: float = 1.0  # in units of the ordinary key's mean square inside the null space, tr(P C)


class AlphaEdit(Memit):
    """Null-space constrained editing."""

    name: ClassVar[str] = "alphaedit"
    title: ClassVar[str] = "AlphaEdit"
    paper: ClassVar[str] = "2410.02355"
    Settings = AlphaEditSettings

    def change(
        self, job: Job, settings: MemitSettings, layer: int, moment: SecondMoment, keys: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(settings, AlphaEditSettings)
        facts = len(job.earlier) + len(job.edits) if job.lm.num_layers <= SHALLOW else 0
        basis, power = null_space(moment, settings.energy, settings.room * facts, settings.most)
        return null_space_factors(basis, keys.T, earlier_keys(job, settings, layer).T, rest, settings.l2 * power)


def earlier_keys(job: Job, settings: MemitSettings, layer: int) -> Tensor:
    """(rows, in) keys of the earlier facts at one layer, as the model reads them now: one for each form.

    All layers are read in one pass, at the first.
    """
    if not job.earlier:
        return torch.zeros(0, 1, dtype=torch.float64)
    if "earlier" not in job.kept:
        problems = build_problems(job.lm, job.earlier, ("",), essence=())
        rows = [row for problem in problems for row in problem.rows]
        job.kept["earlier"] = subject_activations(job.lm, rows, list(settings.layers or (layer,)))
    keys: Tensor = job.kept["earlier"][layer].keys
    return keys


def null_space(moment: SecondMoment, energy: float, wanted: int = 0, most: float = 1.0) -> tuple[Tensor, float]:
    """The directions of least use that together hold at most ``energy`` of the mean square of ordinary keys.

    Args:
        wanted: where ``energy`` gives fewer directions, take this many, or as many as hold at most the share ``most``.

    Returns:
        an orthonormal basis (in, m), and the mean square that is inside it.
    """
    values, vectors = moment.spectrum
    inside = values.cumsum(0) / values.sum()
    least, limit = (max(1, int((inside <= share).sum())) for share in (energy, most))
    width = max(least, min(wanted, limit))
    return vectors[:, :width], float(values[:width].sum())


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
