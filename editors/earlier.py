"""Earlier facts in a sequence of edits: which of them stand, and leaving their keys alone.

    directions = spared(moment, earlier_keys(job, [layer], layer), directions, settings.protect)

What falls all the same is learned again by :mod:`editors.rehearsal`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editors.base import Job
from editors.keys import subject_activations
from editors.problems import build_problems
from editors.statistics import SecondMoment
from knowledge.edit import Edit
from knowledge.text import normalise_key


def standing(job: Job) -> list[Edit]:
    """The earlier facts that are to hold: of each the last word said on it, and none that is edited now."""
    last = {fact(edit): edit for edit in job.earlier}
    now = {fact(edit) for edit in job.edits}
    return [edit for key, edit in last.items() if key not in now]


def fact(edit: Edit) -> tuple[str, str]:
    """What an edit is about: two edits with the same are two answers to one question."""
    return normalise_key(edit.subject), edit.relation or normalise_key(edit.prompt)


def earlier_keys(job: Job, layers: Sequence[int], layer: int) -> Tensor:
    """(rows, in) keys of the earlier facts at one of ``layers``, as the model reads them now: one for each form.

    All layers are read in one pass, at the first.
    """
    if "earlier" not in job.kept:
        problems = build_problems(job.lm, standing(job), ("",), essence=())
        rows = [row for problem in problems for row in problem.rows]
        job.kept["earlier"] = subject_activations(job.lm, rows, list(layers)) if rows else {}
    taken = job.kept["earlier"]
    keys: Tensor = taken[layer].keys if taken else torch.zeros(0, 1, dtype=torch.float64)
    return keys


def spared(moment: SecondMoment, earlier: Tensor, directions: Tensor, weight: float) -> Tensor:
    """Directions that leave earlier keys alone as well: (C + w K_p K_p^T)^-1 K from C^-1 K, by Woodbury's identity.

    Args:
        earlier: (rows, in), K_p.
        directions: (edits, in).
        weight: w, what one earlier key weighs beside all ordinary ones, whose mean C is.
    """
    if not earlier.numel() or not weight:
        return directions
    solved = moment.solve(earlier.T)
    inner = earlier @ solved
    inner.diagonal().add_(1 / weight)
    return directions - (solved @ torch.linalg.solve(inner, earlier @ directions.T)).T
