"""Earlier facts in a sequence of edits: leaving their keys alone, and making again what a later edit broke.

    directions = spared(moment, earlier_keys(job, [layer], layer), directions, settings.protect)
    made = repaired(job, made, again, every=10)

Least squares asks for whole vectors, so a layer's keys are soon spent, and some earlier answer always falls. What has
to hold is only the answer; making the few that fell again, like a perceptron, keeps far more facts than either alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from editors.base import Job, already_known
from editors.compacting import compacted
from editors.keys import subject_activations
from editors.problems import build_problems
from editors.statistics import SecondMoment
from knowledge.edit import Edit
from knowledge.text import normalise_key
from language_model.overlay import Overlay

_ROUNDS = 3  # at most; the second finds what the first broke or left short
_HOPELESS = 0.25  # where more than this share has fallen, making it all again would only tear the model further


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


def repaired(job: Job, made: Overlay, again: Callable[[Job], Overlay], *, every: int) -> Overlay:
    """``made``, and on top of it once more the edits that did not take, and the earlier facts that fell.

    Args:
        again: computes a job's edits; called with ``made`` active.
        every: the earlier facts are asked only when their number passes a multiple of this, since all have to be asked.
    """
    before = standing(job)
    asked = before if (len(before) + len(job.edits)) // every > len(before) // every else []
    wanted = [*asked, *job.edits]

    def missing(overlay: Overlay) -> list[Edit]:
        held = {edit.id for edit in already_known(job.lm, wanted, job.base + overlay)}
        return [edit for edit in wanted if edit.id not in held]

    fallen = missing(made)
    for _ in range(_ROUNDS):
        if not fallen or len(fallen) > max(len(job.edits), _HOPELESS * len(wanted)):
            break
        rest = [edit for edit in (*before, *job.edits) if edit not in fallen]
        now = job.base + made
        job.progress(0.97, f"facts that do not hold, once more: {len(fallen)}")
        repair = replace(job, edits=fallen, earlier=rest, base=now, kept={}, progress=lambda share, what: None)
        with job.lm.overlaid(now):
            more = compacted(made + again(repair))
        left = missing(more)
        if len(left) >= len(fallen):
            break  # no better for it: what was added stays out
        made, fallen = more, left
    return made
