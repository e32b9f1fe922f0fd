"""Rehearsal: facts that do not hold after an edit are learned through the whole model, beside all that has to stay.

    made = rehearsed(job, made, layers=[1, 2, 3], store=moments, settings=RehearsalSettings(), every=1)

A closed-form edit asks a layer for whole vectors at its keys. In a sequence the keys are soon spent, and some earlier
answer always falls. What has to hold is much less: that the answers come out, and that ordinary text reads on as it
did. So where facts have fallen, a few gradient steps complete the change of the edited layers, down

    sum over fallen rows of -log p(target) / 32  +  weight * KL(before || now) on ordinary text

with facts that hold asked beside those that fell, which is rehearsal (Robins 1995, Catastrophic forgetting, rehearsal
and pseudorehearsal) on the edits themselves. A step is the one that goes down most for its size in E|delta^T k|^2 over
ordinary keys k, so its direction is C^-1 times the gradient: what ordinary keys rarely use is changed first, as in the
closed forms. In a sequence on our bundled model some ten such steps after a batch of fifty put a third of its rows
right.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.asking import LOGITS, TOKENS, ask, chunks, hidden_states, own_wordings, row_losses
from editors.base import Job
from editors.earlier import standing
from editors.footprint import Need, Sizes
from editors.passes import down_projection, head
from editors.rewrites import Row, whole_word
from editors.statistics import MomentStore
from language_model.architectures import weight_in_out
from language_model.overlay import Adapter, Dense, LowRank, Overlay

log = logging.getLogger(__name__)

_HOPELESS = 0.25  # where more than this share has fallen, steps would only tear the model further
_FEW = 8  # facts; of so few any share can be learned
_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # of an edit's strength
_KEPT = 0.9999  # of the square of the change; the rest of its singular values is left out


@dataclass(frozen=True)
class RehearsalSettings:
    """How facts are learned again."""

    stride: float = 0.003  # size of a step, as a share of what the edited layers put out for ordinary keys
    fading: float = 0.8  # of the stride from round to round: the last few facts need small steps
    momentum: float = 0.8
    weight: float = 2.0  # of KL on ordinary text
    facts: int = 32  # rows that do not hold, in a step
    held: int = 32  # rows that hold, at most; four for each that does not
    asked: int = 64  # earlier facts, when not all of them are
    texts: int = 32  # ordinary texts
    length: int = 64  # tokens of an ordinary text at most
    loss: float = 0.2  # a row above counts among those that do not hold, though its answer may still come out
    enough: float = 0.05  # a row below is not pushed any further
    rounds: int = 8  # of asking all facts; between two, the rows that do not hold are gone through, few of them again
    steps: int = 4  # in a round at least
    # rounds when all earlier facts are asked, though none has fallen: what new facts wore off, above all of ordinary
    # text, is put right before it shows; kept where a sample of ordinary text has come nearer
    least: int = 0
    sample: int = 64  # ordinary texts


REHEARSAL = RehearsalSettings()


def rehearsed(
    job: Job,
    made: Overlay,
    layers: Sequence[int],
    store: MomentStore,
    settings: RehearsalSettings,
    *,
    every: int,
    all_now: bool = False,
    seed: int = 0,
) -> Overlay:
    """``made``, with what it takes on top for its own edits and the earlier facts to hold.

    Args:
        layers: whose down-projections may change.
        every: all earlier facts are asked when their number passes a multiple of this; in between only some, and only
            where an own one does not hold.
        all_now: all are asked this time too.
        seed: of the draws of rows and texts.

    Returns:
        ``made`` itself where all facts hold (and ``least`` asks for no more), where of many more than a quarter has
        fallen, and where nothing is gained.
    """
    plain = _without_edits(job, layers)
    before = standing(job)
    rows, owner = own_wordings(job.lm, job.edits, plain)
    losses, wrong = ask(job.lm, rows, job.base + made)
    due = all_now or (len(before) + len(job.edits)) // every > len(before) // every
    if not wrong.any() and not due:
        return made
    rng = random.Random(seed)
    if not due:
        before = rng.sample(before, min(len(before), settings.asked))
    if before:
        more, whose = own_wordings(job.lm, before, plain)
        rows, owner = rows + more, owner + [len(job.edits) + number for number in whose]
        losses, wrong = (
            torch.cat(two) for two in zip((losses, wrong), ask(job.lm, more, job.base + made), strict=True)
        )

    def fallen() -> int:
        return len({owner[row] for row in wrong.nonzero()[:, 0].tolist()})

    fell = fewest = fallen()
    least = settings.least if due else 0
    if not (fell or least) or fell > max(_FEW, len(job.edits), _HOPELESS * (len(job.edits) + len(before))):
        return made
    texts = ordinary(job, store, settings.length)
    if not texts:
        if fell:
            log.warning("every ordinary text names an edited fact: %d facts that do not hold are left so", fell)
        return made
    course = _Course(job, made, layers, plain, store, settings)
    sample = random.Random(seed).sample(texts, min(len(texts), settings.sample))
    best, drift = None, course.drift(sample) if least else 0.0
    for number in range(settings.rounds):
        what = f"learning again: {fell} facts that do not hold" if fell else "giving ordinary text back what wore off"
        job.progress(0.97 + 0.03 * number / settings.rounds, what)
        weak = {*((losses > settings.loss) | wrong).nonzero()[:, 0].tolist()}
        held = [row for row in range(len(rows)) if row not in weak]
        for part in [*_parts(sorted(weak), settings, rng)] or [[]] * settings.steps:
            beside = rng.sample(held, min(len(held), settings.held, 4 * len(part) or settings.held))
            asked = [rows[row] for row in (*part, *beside)]
            if not course.step(asked, rng.sample(texts, min(len(texts), settings.texts)), settings.fading**number):
                log.warning("a gradient of the facts that do not hold is not finite; nothing more is learned")
                return made if best is None else made + thinned(best)
        now = course.change()
        losses, wrong = ask(job.lm, rows, job.base + made + now)
        fell = fallen()
        less = course.drift(sample) if least and fell <= fewest else drift
        if fell < fewest or (fell == fewest and less < drift):
            fewest, best, drift = fell, now, less
        if not fell and number + 1 >= least:
            break
    return made if best is None else made + thinned(best)


def rehearsal_stage(sizes: Sizes, layers: int) -> Need:
    """What rehearsal takes: a pass of so many tokens with its gradient, and matrices for each layer."""
    tokens, width = min(TOKENS, LOGITS // sizes.vocab), sizes.width()
    passing = sizes.learning(max(1, tokens // width), width, sizes.layers) + 2 * sizes.logits(tokens)
    return Need("rehearsal", host=sizes.matrix(8 * layers), device=passing + sizes.matrix(2 * layers))


def lightest(
    job: Job, change: Callable[[Tensor], Overlay], layers: Sequence[int], settings: RehearsalSettings
) -> Overlay:
    """A change with each edit's part made only as strong as its own wording needs.

    Args:
        change: takes a share for each edit (edits,) and gives the overlay in which each has that share of its strength.
    """
    rows, owner = own_wordings(job.lm, job.edits, _without_edits(job, layers))
    share = torch.ones(len(job.edits))
    for tried in _SHARES:
        losses, wrong = ask(job.lm, rows, job.base + change(torch.full_like(share, tried)))
        weak = {owner[row] for row in ((losses > settings.loss) | wrong).nonzero()[:, 0].tolist()}
        share[[number not in weak for number in range(len(share))]] = tried
    return change(share)


def _without_edits(job: Job, layers: Sequence[int]) -> Overlay:
    """What is active beside edits of these layers' weights: the model that ordinary text is to be read like.

    Changes of other modules and adapters are part of it; an imported adapter of these very weights is not.
    """
    names = [job.lm.architecture.down(layer) for layer in layers]
    return Overlay(
        {
            name: tuple(part for part in parts if name not in names or isinstance(part, Adapter))
            for name, parts in job.base.parts.items()
        }
    )


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
        self.lm, self.start, self.plain, self.settings = job.lm, job.base + made, plain, settings
        self.names = [job.lm.architecture.down(layer) for layer in layers]
        moments = store.get(job.lm, layers, job.part(0.95, 0.97))
        self.moments = [moments[layer] for layer in layers]
        weights = [weight_in_out(down_projection(job.lm, layer)).detach().cpu().double() for layer in layers]
        usual = sum(
            float((weight * (moment.matrix @ weight)).sum())
            for weight, moment in zip(weights, self.moments, strict=True)
        )
        self.stride = settings.stride * math.sqrt(usual)
        self.deltas = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        self.speed = [torch.zeros_like(delta) for delta in self.deltas]

    def change(self) -> Overlay:
        """What has been learned so far."""
        return Overlay({name: (Dense(delta.clone()),) for name, delta in zip(self.names, self.deltas, strict=True)})

    def step(self, rows: Sequence[Row], texts: Sequence[Sequence[int]], size: float) -> bool:
        """One step down for these facts and ordinary texts; ``size`` in strides. False where it is not finite."""
        leaves = [delta.clone().requires_grad_(True) for delta in self.deltas]
        trained = self.start + Overlay({name: (Dense(x),) for name, x in zip(self.names, leaves, strict=True)})
        gradient = [torch.zeros_like(delta) for delta in self.deltas]
        with torch.enable_grad():
            for loss in self._losses(rows, texts, trained):
                found = torch.autograd.grad(loss, leaves)
                gradient = [total + part for total, part in zip(gradient, found, strict=True)]
        self.speed = [self.settings.momentum * old + new for old, new in zip(self.speed, gradient, strict=True)]
        natural = [moment.solve(speed).float() for moment, speed in zip(self.moments, self.speed, strict=True)]
        length = math.sqrt(sum(float((a * b).sum()) for a, b in zip(natural, self.speed, strict=True)))
        if not math.isfinite(length):
            return False
        for delta, direction in zip(self.deltas, natural, strict=True):
            delta -= size * self.stride / max(length, 1e-30) * direction
        return True

    def _losses(self, rows: Sequence[Row], texts: Sequence[Sequence[int]], overlay: Overlay) -> Iterator[Tensor]:
        """The parts of the loss, a pass each."""
        for chunk in chunks(self.lm, [row.ids for row in rows]):
            losses, wrong = row_losses(self.lm, [rows[index] for index in chunk], overlay)
            pushed = (losses > self.settings.enough) | wrong  # of a long target one wrong token may hide in the mean
            yield torch.where(pushed, losses, torch.zeros_like(losses)).sum() / self.settings.facts
        for chunk in chunks(self.lm, texts):
            yield self.settings.weight / len(texts) * self._drift([texts[index] for index in chunk], overlay)

    def drift(self, texts: Sequence[Sequence[int]]) -> float:
        """Mean KL(before || now) of ordinary texts, with what has been learned so far."""
        now = self.start + self.change()
        with torch.no_grad():
            found = [self._drift([texts[i] for i in chunk], now) for chunk in chunks(self.lm, texts)]
        return float(torch.stack(found).sum()) / len(texts)

    def _drift(self, texts: Sequence[Sequence[int]], overlay: Overlay) -> Tensor:
        """Sum over texts of the mean over their tokens of KL(before || now)."""
        with torch.no_grad():
            states, mask = hidden_states(self.lm, texts, self.plain)
            before = head(self.lm, states[mask]).log_softmax(-1)
        now = head(self.lm, hidden_states(self.lm, texts, overlay)[0][mask]).log_softmax(-1)
        share = (mask / mask.sum(1, keepdim=True))[mask]
        return ((before.exp() * (before - now)).sum(-1) * share).sum()


def thinned(change: Overlay) -> Overlay:
    """The same change, each matrix as factors where they are smaller."""
    parts: dict[str, tuple[LowRank | Dense]] = {}
    for name in change.modules:
        delta = change.delta(name)
        assert delta is not None
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        share = s.square().cumsum(0) / s.square().sum().clamp_min(1e-30)
        rank = int((share < _KEPT).sum()) + 1
        small = rank * sum(delta.shape) <= delta.numel()
        thin = LowRank((u[:, :rank] * s[:rank]).contiguous(), v[:rank].contiguous())
        parts[name] = (thin if small else Dense(delta),)
    return Overlay(parts)


def ordinary(job: Job, store: MomentStore, length: int) -> list[list[int]]:
    """Token rows of the corpus, without texts that say the old answer of a fact that has been edited.

    Of a fact whose old answer is not known, all texts that name its subject are left out.
    """
    old: dict[str, set[str]] = {}
    for edit in (*standing(job), *job.edits):
        old.setdefault(edit.subject, set()).add(edit.target_true or "")
    lowered = [(subject, subject.lower(), answers) for subject, answers in old.items()]

    def says_it(text: str) -> bool:
        low = text.lower()
        return any(
            name in low
            and whole_word(text, subject) >= 0
            and any(not answer or whole_word(text, answer) >= 0 for answer in answers)
            for subject, name, answers in lowered
        )

    rows = [row[:length] for row in store.rows(job.lm)]
    return [row for row in rows if not says_it(job.lm.tokenizer.decode(row))]
