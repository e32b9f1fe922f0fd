"""Rehearsal: facts that do not hold after an edit are learned through the whole model, beside all that has to stay.

    made = rehearsed(job, made, layers=[1, 2, 3], store=moments, settings=RehearsalSettings(), every=1)

A closed-form edit asks a layer for whole vectors at its keys. In a sequence the keys are soon spent, and some earlier
answer always falls. What has to hold is much less: that the answers come out, and that ordinary text reads on as it
did. So where facts have fallen, a few gradient steps complete the change of the edited layers,

    sum over facts of -log p(target)  +  weight * KL(before || now) on ordinary text

with facts that hold asked beside those that fell, which is rehearsal (Robins 1995, Catastrophic forgetting, rehearsal
and pseudorehearsal) on the edits themselves. A step is the one that goes down most for its size in E|delta^T k|^2 over
ordinary keys k, so its direction is C^-1 times the gradient: what ordinary keys rarely use is changed first, as in the
closed forms. In a bundled-model sequence eight such steps after a batch of fifty put a third of its rows right.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from editors.base import Job
from editors.earlier import standing
from editors.passes import block, down_projection, head, hidden_of, hooked, pad
from editors.problems import build_problems
from editors.rewrites import Row
from editors.statistics import MomentStore
from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank, Overlay

_HOPELESS = 0.25  # where more than this share has fallen, steps would only tear the model further
_KEPT = 0.9999  # of the square of the change; the rest of its singular values is left out
_TOKENS = 2048  # in one pass, padding included


@dataclass(frozen=True)
class RehearsalSettings:
    """How facts are learned again."""

    stride: float = 0.003  # size of a step, as a share of what the edited layers put out for ordinary keys
    fading: float = 0.8  # of the stride from round to round: the last few facts need small steps
    momentum: float = 0.8
    weight: float = 2.0  # of KL on ordinary text
    facts: int = 32  # rows that do not hold, in a step
    held: int = 32  # rows that hold, at most; four for each that does not
    texts: int = 32  # ordinary texts
    length: int = 64  # tokens of an ordinary text at most
    loss: float = 0.2  # a row above counts among those that do not hold, though its answer may still come out
    enough: float = 0.05  # a row below is not pushed any further
    rounds: int = 8  # of asking all facts; between two, the rows that do not hold are gone through once
    steps: int = 4  # in a round at least


REHEARSAL = RehearsalSettings()


class _Enough(Exception):
    """Raised from a hook behind the last block."""


def rehearsed(
    job: Job, made: Overlay, layers: Sequence[int], store: MomentStore, settings: RehearsalSettings, *, every: int
) -> Overlay:
    """``made``, with what it takes on top for its own edits and the earlier facts to hold.

    Args:
        layers: whose down-projections may change.
        every: the earlier facts are asked only when their number passes a multiple of this, since all have to be asked.

    Returns:
        ``made`` itself where all facts hold, where most have fallen, and where nothing was gained.
    """
    before = standing(job)
    due = (len(before) + len(job.edits)) // every > len(before) // every
    names = [job.lm.architecture.down(layer) for layer in layers]
    # what other modules have been given, an imported style for example, is to stay as it is
    plain = Overlay({name: parts for name, parts in job.base.parts.items() if name not in names})
    rows, owner = _rows(job.lm, [*job.edits, *before], plain)
    asked = len(rows) if due else owner.index(len(job.edits)) if before else len(rows)
    facts = len(job.edits) + (len(before) if due else 0)

    def fallen(wrong: Tensor) -> int:
        return len({owner[row] for row in wrong.nonzero()[:, 0].tolist()})

    losses, wrong = _ask(job.lm, rows[:asked], job.base + made)
    fell = fewest = fallen(wrong)
    if not fell or fell > max(len(job.edits), _HOPELESS * facts):
        return made
    course = _Course(job, made, layers, plain, store, settings)
    rng, best = random.Random(len(rows)), None
    for number in range(settings.rounds):
        job.progress(0.95, f"facts that do not hold: {fell}; learned again, round {number + 1}")
        weak = {*((losses > settings.loss) | wrong).nonzero()[:, 0].tolist()}
        held = [row for row in range(len(rows)) if row not in weak]
        for part in _parts(sorted(weak), settings, rng):
            beside = rng.sample(held, min(len(held), settings.held, 4 * len(part)))
            course.step([rows[row] for row in (*part, *beside)], settings.fading**number, rng)
        now = course.overlay()
        losses, wrong = _ask(job.lm, rows[:asked], job.base + now)
        fell = fallen(wrong)
        if fell < fewest:
            fewest, best = fell, now
        if not fell:
            break
    return made if best is None else best


def _rows(lm: LanguageModel, edits: Sequence[Edit], plain: Overlay) -> tuple[list[Row], list[int]]:
    """Each edit's own wording in every form, and the number of the edit that a row belongs to.

    Where the model without the edits would end its turn after the new answer, that end belongs to it: "Osaka" is not to
    become "Osaka University".
    """
    problems = build_problems(lm, edits, ("",), essence=())
    rows = [row for problem in problems for row in problem.rows]
    owner = [number for number, problem in enumerate(problems) for _ in problem.rows]
    chats = [number for number, row in enumerate(rows) if row.form == "chat"]
    for chunk in _chunks([rows[number].ids for number in chats]):
        part = [chats[index] for index in chunk]
        with torch.no_grad():
            states, mask = _states(lm, [rows[number].ids for number in part], plain)
            last = states[torch.arange(len(part), device=mask.device), mask.sum(1) - 1]
            following = head(lm, last).argmax(-1).tolist()
        for number, token in zip(part, following, strict=True):
            row = rows[number]
            if token in lm.codec.turn_end_ids and row.ids[-1] != token and len(row.ids) < lm.context:
                rows[number] = replace(row, ids=(*row.ids, token))
    return rows, owner


def _parts(rows: Sequence[int], settings: RehearsalSettings, rng: random.Random) -> Iterator[list[int]]:
    """Rows in random order, a step's worth at a time; few rows come again until there are enough steps."""
    order: list[int] = []
    while len(order) < settings.steps * settings.facts and len(order) < settings.steps * len(rows):
        order += rng.sample(rows, len(rows))
    size = min(settings.facts, max(1, len(rows)))
    yield from (order[start : start + size] for start in range(0, len(order), size))


class _Course:
    """The change while it is learned: one matrix a layer, on top of ``made``."""

    def __init__(
        self,
        job: Job,
        made: Overlay,
        layers: Sequence[int],
        plain: Overlay,
        store: MomentStore,
        settings: RehearsalSettings,
    ) -> None:
        self.lm, self.base, self.made, self.plain, self.settings = job.lm, job.base, made, plain, settings
        self.names = [job.lm.architecture.down(layer) for layer in layers]
        moments = store.get(job.lm, layers)
        self.moments = [moments[layer] for layer in layers]
        self.texts = _ordinary(job, store, settings.length)
        weights = [weight_in_out(down_projection(job.lm, layer)).detach().cpu().double() for layer in layers]
        usual = sum(
            float((weight * (moment.matrix @ weight)).sum())
            for weight, moment in zip(weights, self.moments, strict=True)
        )
        self.stride = settings.stride * math.sqrt(usual)
        self.change = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        self.speed = [torch.zeros_like(change) for change in self.change]

    def step(self, rows: Sequence[Row], size: float, rng: random.Random) -> None:
        """One step down for these rows and some ordinary texts; ``size`` in strides."""
        texts = rng.sample(self.texts, min(len(self.texts), self.settings.texts))
        leaves = [change.clone().requires_grad_(True) for change in self.change]
        trained = self.base + self.made + Overlay(dict(zip(self.names, ((Dense(x),) for x in leaves), strict=True)))
        gradient = [torch.zeros_like(change) for change in self.change]
        tasks = [(chunk, True) for chunk in _chunks([row.ids for row in rows])]
        tasks += [(chunk, False) for chunk in _chunks(texts)]
        for chunk, told in tasks:
            with torch.enable_grad():
                if told:
                    loss = self._fact_loss([rows[index] for index in chunk], trained) / self.settings.facts
                else:
                    drift = self._drift([texts[index] for index in chunk], trained) / len(texts)
                    loss = self.settings.weight * drift
                found = torch.autograd.grad(loss, leaves)
            gradient = [total + part.cpu() for total, part in zip(gradient, found, strict=True)]
        self.speed = [self.settings.momentum * old + new for old, new in zip(self.speed, gradient, strict=True)]
        natural = [moment.solve(speed).float() for moment, speed in zip(self.moments, self.speed, strict=True)]
        length = math.sqrt(sum(float((a * b).sum()) for a, b in zip(natural, self.speed, strict=True)))
        for change, direction in zip(self.change, natural, strict=True):
            change -= size * self.stride / max(length, 1e-30) * direction

    def _fact_loss(self, rows: Sequence[Row], overlay: Overlay) -> Tensor:
        losses, _ = _losses(self.lm, rows, overlay)
        return torch.where(losses > self.settings.enough, losses, torch.zeros_like(losses)).sum()

    def _drift(self, texts: Sequence[Sequence[int]], overlay: Overlay) -> Tensor:
        """Sum over texts of the mean over their tokens of KL(before || now)."""
        with torch.no_grad():
            states, mask = _states(self.lm, texts, self.plain)
            before = head(self.lm, states[mask]).log_softmax(-1)
        now = head(self.lm, _states(self.lm, texts, overlay)[0][mask]).log_softmax(-1)
        share = (mask / mask.sum(1, keepdim=True))[mask]
        return ((before.exp() * (before - now)).sum(-1) * share).sum()

    def overlay(self) -> Overlay:
        """``made`` and what was learned, each matrix as factors where they are smaller."""
        return self.made + Overlay(
            {name: (_thin(change),) for name, change in zip(self.names, self.change, strict=True)}
        )


def _thin(change: Tensor) -> LowRank | Dense:
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    share = s.square().cumsum(0) / s.square().sum().clamp_min(1e-30)
    rank = int((share < _KEPT).sum()) + 1
    if rank * sum(change.shape) > change.numel():
        return Dense(change.clone())
    return LowRank((u[:, :rank] * s[:rank]).contiguous(), v[:rank].contiguous())


def _ordinary(job: Job, store: MomentStore, length: int) -> list[list[int]]:
    """Token rows of the corpus, without texts that say the old answer of a fact that has been edited."""
    old: dict[str, set[str]] = {}
    for edit in (*standing(job), *job.edits):
        old.setdefault(edit.subject, set()).add(edit.target_true or "")
    rows = [row[:length] for row in store.rows(job.lm)]
    texts = [job.lm.tokenizer.decode(row) for row in rows]
    return [
        row
        for row, text in zip(rows, texts, strict=True)
        if not any(subject in text and any(answer in text for answer in answers) for subject, answers in old.items())
    ]


def _ask(lm: LanguageModel, rows: Sequence[Row], overlay: Overlay) -> tuple[Tensor, Tensor]:
    """Of each row the mean loss of its target's tokens, and whether a token of it would not be said."""
    losses, wrong = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.bool)
    for chunk in _chunks([row.ids for row in rows]):
        with torch.no_grad():
            losses[chunk], wrong[chunk] = (part.cpu() for part in _losses(lm, [rows[i] for i in chunk], overlay))
    return losses, wrong


def _losses(lm: LanguageModel, rows: Sequence[Row], overlay: Overlay) -> tuple[Tensor, Tensor]:
    states, _ = _states(lm, [row.ids for row in rows], overlay)
    reads = [
        (number, at, token) for number, row in enumerate(rows) for at, token in zip(row.reads, row.target, strict=True)
    ]
    owner, at, wanted = (torch.tensor(column, device=states.device) for column in zip(*reads, strict=True))
    logits = head(lm, states[owner, at])
    surprise = logits.logsumexp(-1) - logits.gather(1, wanted[:, None])[:, 0]
    count = torch.tensor([len(row.target) for row in rows], device=states.device)
    zero = torch.zeros(len(rows), device=states.device)
    missed = (logits.argmax(-1) != wanted).float()
    return zero.index_add(0, owner, surprise) / count, zero.index_add(0, owner, missed) > 0


def _states(lm: LanguageModel, rows: Sequence[Sequence[int]], overlay: Overlay) -> tuple[Tensor, Tensor]:
    """The hidden states under the final norm (rows, time, hidden), and which of them are no padding."""
    ids, mask = pad(lm, rows)
    taken: list[Tensor] = []

    def behind(_module: nn.Module, _inputs: Any, _kwargs: Any, output: Any) -> None:
        taken.append(hidden_of(output))
        raise _Enough

    with lm.overlaid(overlay), hooked((block(lm, lm.num_layers - 1), "after", behind)), suppress(_Enough):
        lm.run_model(input_ids=ids, use_cache=False)
    return taken[0], mask


def _chunks(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of rows of like length, as many as fit one pass."""
    chunk: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
        if chunk and (len(chunk) + 1) * len(rows[number]) > _TOKENS:
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk
