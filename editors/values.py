"""Target values: what the edited layer must output at the subject for the model to say the new target.

    values = optimise_values(lm, problems, layer=3, settings=ValueSettings())
    values.target          # (edits, out): v* = v + d, ROME (2202.05262, eq. 4); MEMIT's z (2210.07229, eq. 16)

Many edits are optimised in one batch. They do not touch each other: each has its own change d, its own Adam state and
its own stopping, so the result is that of one after another. What lies below the edited layer is computed once.

Sizes are relative. The published constants fit GPT-2 XL, where |v| is about 44 over 1600 dimensions; here d is measured
in units of a reference length, so that a step, the decay and the clamp mean the same in a model of any scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from editors.adam import RowAdam
from editors.base import EditRefused
from editors.passes import Suffix
from editors.problems import Problem
from editors.rewrites import Row
from editors.tails import Tails
from language_model.model import LanguageModel


@dataclass(frozen=True)
class ValueSettings:
    """How values are found. Defaults are ROME's, but for the rule."""

    rule: Literal["steepest", "adam"] = "steepest"  # "adam": as published
    steps: int = 25  # 20 to 25 in the papers; most edits stop before
    stride: float = 0.1  # of a steepest step, in units of |h|; falls to nothing over the steps
    lr: float = 0.5  # of Adam, in units of the reference length over sqrt(out): GPT-2 XL's 0.5 within 10 %
    stop_loss: float = 0.05  # an edit is done when its target and essence terms are below
    said: bool = False  # and not before its prompts without a prefix are answered with the target
    decay: float = 0.01  # times |d| / reference: the released 0.5 |d| / |v|^2 at GPT-2 XL's |v|
    essence: float = 0.0625  # weight of KL on "{subject} is a"
    clamp: float = 4.0  # |d| at most this many references
    reference: Literal["value", "hidden"] = "value"  # |v| (ROME), or |h|, the layer's whole output (MEMIT)
    floor: float = 0.25  # |v| counts as at least this share of |h|: a tiny |v| must not stop the edit
    tokens: int = 4096  # in one batch, padding included; more do not fit a CPU's cache


@dataclass(frozen=True)
class Values:
    """Values of a batch of edits, float64 on the CPU.

    Attributes:
        start: (edits, out) v, the down-projection's output at the subject of the bare prompt.
        delta: (edits, out) d.
        loss: (edits,) the last loss without decay.
        steps: (edits,) Adam steps taken.
    """

    start: Tensor
    delta: Tensor
    loss: Tensor
    steps: Tensor

    @property
    def target(self) -> Tensor:
        return self.start + self.delta


def optimise_values(
    lm: LanguageModel,
    problems: Sequence[Problem],
    layer: int,
    settings: ValueSettings,
    progress: Callable[[float, str], None] | None = None,
    doses: Sequence[Tensor] | None = None,
) -> Values:
    """Values of all edits at one layer, with the overlay that is active.

    Args:
        doses: a tensor (rows + essence rows,) an edit: the share of d that the weight change will bring about in each
            row. Without it every row gets all of d, as in the papers, and rows whose keys lie apart from the edited one
            get less afterwards than they were promised here.

    Raises:
        EditRefused: nothing above the layer could read what is changed there.
    """
    check_layer(lm, layer)
    parts: list[Values] = []
    order = sorted(range(len(problems)), key=lambda index: max(len(row.ids) for row in problems[index].rows))
    done = 0
    for chunk in _chunks([problems[index] for index in order], settings.tokens):
        shares = None if doses is None else [doses[index] for index in order[done : done + len(chunk)]]
        parts.append(_optimise(lm, chunk, layer, settings, shares))
        done += len(chunk)
        if progress:
            progress(done / len(problems), f"target values: {done} of {len(problems)} edits")
    back = torch.tensor(order).argsort()
    return Values(*(torch.cat([getattr(part, name) for part in parts])[back] for name in Values.__dataclass_fields__))


def check_layer(lm: LanguageModel, layer: int) -> None:
    """Refuses a layer that does not exist or that no later layer could read from."""
    if not 0 <= layer < lm.num_layers - 1:
        raise EditRefused(
            f"Layer {layer} cannot be edited: {lm.name} has layers 0 to {lm.num_layers - 1}, "
            f"and what is written at the "
            f"subject has to be read by a later layer. Choose a layer from 0 to {lm.num_layers - 2}."
        )


class _Batch:
    """The rows of some edits laid out flat, and their loss."""

    def __init__(
        self, lm: LanguageModel, problems: Sequence[Problem], layer: int, doses: Sequence[Tensor] | None
    ) -> None:
        self.size = len(problems)
        rows: list[Row] = []
        owner: list[int] = []
        reads: list[tuple[int, int, int, float]] = []  # row, position, wanted token, weight
        essence: list[tuple[int, int, float]] = []  # row, position, weight
        self.first: list[int] = []
        bare: set[int] = set()  # rows without a prefix
        for number, problem in enumerate(problems):
            self.first.append(len(rows) + problem.bare[0])
            bare.update(len(rows) + index for index in problem.bare)
            for row, weight in zip(problem.rows, problem.weights, strict=True):
                share = weight / len(row.target)
                reads += [(len(rows), at, wanted, share) for at, wanted in zip(row.reads, row.target, strict=True)]
                rows.append(row)
                owner.append(number)
            for row in problem.essence:
                essence.append((len(rows), len(row.ids) - 1, 1.0 / len(problem.essence)))
                rows.append(row)
                owner.append(number)
        device = lm.device
        self.owner = torch.tensor(owner, device=device)
        self.subject = torch.tensor([row.subject for row in rows], device=device)
        self.read_row = torch.tensor([read[0] for read in reads], device=device)
        self.read_at = torch.tensor([read[1] for read in reads], device=device)
        self.wanted = torch.tensor([read[2] for read in reads], device=device)
        self.share = torch.tensor([read[3] for read in reads], device=device)
        self.bare = torch.tensor([read[0] in bare for read in reads], device=device)
        self.known_row = torch.tensor([item[0] for item in essence], device=device, dtype=torch.long)
        self.known_at = torch.tensor([item[1] for item in essence], device=device, dtype=torch.long)
        self.known_share = torch.tensor([item[2] for item in essence], device=device)
        self.dose = torch.ones(len(rows), device=device) if doses is None else torch.cat(list(doses)).float().to(device)
        self.suffix = Suffix(lm, [row.ids for row in rows], layer)
        self.tails = Tails(self.suffix, self.subject)
        with torch.no_grad():
            self.before = self.suffix.head(self.tails.still[self.known_row, self.known_at]).log_softmax(-1)

    def losses(self, delta: Tensor, active: Tensor, *, look: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Target and essence loss of each active edit, and whether its prompts without a prefix say the target.

        Args:
            delta: (active, out).
            active: (active,) numbers of the edits, rising.
            look: whether what is said is looked at; without it all are taken to say it.

        Returns:
            three tensors (active,).
        """
        place = torch.full((self.size,), -1, device=active.device)
        place[active] = torch.arange(len(active), device=active.device)
        kept = (place[self.owner] >= 0).nonzero()[:, 0]
        row_place = torch.full((len(self.owner),), -1, device=active.device)
        row_place[kept] = torch.arange(len(kept), device=active.device)
        reads = (row_place[self.read_row] >= 0).nonzero()[:, 0]
        knows = (row_place[self.known_row] >= 0).nonzero()[:, 0]
        states = self.tails.read(
            delta[place[self.owner[kept]]] * self.dose[kept, None],
            kept,
            row_place[torch.cat([self.read_row[reads], self.known_row[knows]])],
            torch.cat([self.read_at[reads], self.known_at[knows]]),
        )
        # Split, not sliced: the gradient of a slice is a pass over all logits, and those of a wide vocabulary are many.
        asked, known = self.suffix.head(states).split([len(reads), len(knows)])
        surprise = cross_entropy(asked, self.wanted[reads], reduction="none")
        owners = place[self.owner[self.read_row[reads]]]
        nought = torch.zeros(len(active), device=active.device)
        target = nought.index_add(0, owners, surprise * self.share[reads])
        said = torch.ones_like(active, dtype=torch.bool)
        if look:
            missed = self.bare[reads] & (asked.detach().argmax(-1) != self.wanted[reads])
            said = nought.index_add(0, owners, missed.float()) == 0

        essence = nought
        if len(knows):
            now, before = known.log_softmax(-1), self.before[knows]
            kl = (before.exp() * (before - now)).sum(-1)
            essence = essence.index_add(0, place[self.owner[self.known_row[knows]]], kl * self.known_share[knows])
        return target, essence, said


def _optimise(
    lm: LanguageModel,
    problems: Sequence[Problem],
    layer: int,
    settings: ValueSettings,
    doses: Sequence[Tensor] | None,
) -> Values:
    batch = _Batch(lm, problems, layer, doses)
    first = torch.tensor(batch.first, device=lm.device)
    start = batch.suffix.values[first, batch.subject[first]].float()
    hidden = batch.suffix.hidden[first, batch.subject[first]].float().norm(dim=-1)
    reference = hidden if settings.reference == "hidden" else start.norm(dim=-1).maximum(settings.floor * hidden)
    reference = reference.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    unit = reference / start.shape[1] ** 0.5

    count, width = start.shape
    x = torch.zeros(count, width, device=lm.device)  # d in units
    adam = RowAdam(x, settings.lr) if settings.rule == "adam" else None
    stride = (settings.stride * hidden)[:, None] / unit
    final = torch.zeros(count, device=lm.device)
    taken = torch.zeros(count, dtype=torch.long, device=lm.device)
    active = torch.arange(count, device=lm.device)
    for step in range(1, settings.steps + 1):
        leaf = x[active].requires_grad_(True)
        with torch.enable_grad():
            delta = leaf * unit[active]
            target, essence, said = batch.losses(delta, active, look=settings.said)
            loss = target + settings.essence * essence
            size = (delta.square().sum(-1) + 1e-12).sqrt() / reference[active, 0]
            (gradient,) = torch.autograd.grad((loss + settings.decay * size).sum(), leaf)
        final[active] = loss.detach()
        going = loss.detach() >= settings.stop_loss
        if settings.said:
            going |= ~said
        active, gradient = active[going], gradient[going]
        if not len(active) or step == settings.steps:
            break
        if adam is not None:
            moved = x[active] - adam.step(active, gradient)
        else:
            falling = 1 - (step - 1) / settings.steps
            moved = x[active] - falling * stride[active] * torch.nn.functional.normalize(gradient, dim=-1)
        length = (moved * unit[active]).norm(dim=-1, keepdim=True)
        limit = settings.clamp * reference[active]
        x[active] = moved * (limit / length.clamp_min(1e-30)).clamp_max(1.0)
        taken[active] = step
    return Values(start.double().cpu(), (x * unit).double().cpu(), final.double().cpu(), taken.cpu())


def _chunks(problems: Sequence[Problem], tokens: int) -> list[list[Problem]]:
    """Edits in runs whose padded rows stay within ``tokens``; one edit at least."""
    chunks: list[list[Problem]] = []
    count = width = 0
    for problem in problems:
        sizes = [len(row.ids) for row in (*problem.rows, *problem.essence)]
        count, width = count + len(sizes), max(width, *sizes)
        if not chunks or count * width > tokens:
            chunks.append([])
            count, width = len(sizes), max(sizes)
        chunks[-1].append(problem)
    return chunks
