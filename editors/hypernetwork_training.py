"""Training of MEND's and KE's networks: many single edits and small batches in each step, in minutes on two cores.

    trainer = HyperTrainer(lm, MendNet.for_model(lm), Lessons(load_world()), folder)
    trainer.run(minutes=4)                         # goes on where an earlier run in this folder stopped
    measure(lm, trainer.net, Lessons(load_world(), held_out=True), count=100)

A step takes some lessons, computes their gradients in one pass, and looks at the model with the network's changes in
another. Some of its edits stand alone and some share a group; a row sees the changes of its own group only, so both are
learned in one pass. Loss: c * edit + locality, the first on the rewrite and its rewordings, the second the KL
divergence on facts that must stay and on what follows an answer (2110.11309, eq. 6). KE's is under a constraint.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.hypernetwork_data import Lesson, Lessons
from editors.hypernetworks import Hypernetwork, fact_rows, gradient_factors, grouped_overlay
from editors.mend import MendNet
from editors.reads import target_losses
from editors.rewrites import Row, forms_of, tokenise
from knowledge.edit import Edit
from knowledge.errors import InvalidInput
from language_model.model import LanguageModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained."""

    lessons: int = 8  # in a step
    lr: float = 1e-3  # of Adam, for the network
    step_lr: float = 3e-2  # for the logs of the layers' steps, which have far to go
    # c_e of MEND (0.1 in the paper, where every target is a likely answer; ours are counterfactuals, and with 0.1 the
    # network stays too timid in the minutes that it has); KE's edit loss counts in full.
    edit: float = 0.3
    clip: float = 1.0  # norm of the gradient
    together: float = 0.4  # share of the steps whose edits are made in groups, of 2 up to all of them
    warm_up: int = 10
    halve: int = 400  # steps after which the learning rate has halved
    seed: int = 0


@dataclass
class Constraint:
    """KE's Lagrangian (2104.08164, section 3.3): the KL may reach a margin, annealed; its price follows the breach.

    The price has a ceiling: the paper trains for days, and in minutes the margin is out of reach, so that a price that
    rises for ever would only teach the network to change nothing.
    """

    margin: float = 1e-3
    least: float = 1e-5
    shrink: float = 0.99  # of the margin, a step in which it was kept
    price: float = 1.0
    rate: float = 0.03
    ceiling: float = 10.0

    def update(self, kl: float) -> None:
        # The breach counts in units of the margin and at most 1, or the price would run away in the first steps.
        breach = max(-1.0, min(1.0, kl / self.margin - 1))
        self.price = min(max(self.price * (1 + self.rate * breach), 0.1), self.ceiling)
        if kl <= self.margin:
            self.margin = max(self.least, self.margin * self.shrink)


@dataclass(frozen=True)
class Batch:
    """A step's lessons as rows. ``groups`` (lessons,): edits of one number are made together."""

    edits: list[Edit]
    rows: list[Row]
    row_lesson: list[int]
    is_edit: list[bool]  # the row's target has to come; otherwise its answer must stay
    groups: Tensor


def make_batch(lm: LanguageModel, lessons: Sequence[Lesson], sizes: Sequence[int]) -> Batch:
    """Rows of lessons whose edits are made in groups of ``sizes``, in order."""
    rows: list[Row] = []
    owner: list[int] = []
    wanted: list[bool] = []
    for number, lesson in enumerate(lessons):
        for edit, must in [
            *((e, True) for e in (lesson.edit, *lesson.reworded)),
            *((e, False) for e in lesson.stay),
        ]:
            forms = forms_of(lm, edit)
            for form in forms if must else [forms[number % len(forms)]]:
                rows.append(tokenise(lm, form, form.target_ids(lm, edit.target_new)))
                owner.append(number)
                wanted.append(must)
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes)))[: len(lessons)]
    return Batch([lesson.edit for lesson in lessons], rows, owner, wanted, groups.to(lm.device))


def group_sizes(rng: random.Random, count: int, together: float) -> list[int]:
    """All ones, or, in a share of the steps, groups of one size."""
    size = 1 if rng.random() >= together else rng.choice([2, 4, 8, count])
    return [size] * -(-count // size)


class Objective:
    """Both losses of a batch under the network's changes."""

    def __init__(self, lm: LanguageModel, batch: Batch, modules: Sequence[str]) -> None:
        self.lm, self.batch = lm, batch
        self.factors = gradient_factors(lm, fact_rows(lm, batch.edits), modules)
        self.tokens = lm.batch([row.ids[: row.start] for row in batch.rows], [row.target for row in batch.rows])
        self.row_groups = batch.groups[torch.tensor(batch.row_lesson, device=lm.device)]
        _, group, sizes = batch.groups.unique(return_inverse=True, return_counts=True)
        self.together = sizes[group]  # (lessons,)
        self.wanted = torch.tensor(batch.is_edit, device=lm.device)
        # The end of an answer must stay where it is, and all of an answer that is not to change.
        places = [
            (number, at)
            for number, (row, must) in enumerate(zip(batch.rows, batch.is_edit, strict=True))
            for at in ([len(row.ids) - 1] if must else range(row.start - 1, len(row.ids)))
        ]
        self.kept_row, self.kept_at = (torch.tensor(column, device=lm.device) for column in zip(*places, strict=True))
        with torch.no_grad():
            logits = lm.forward(self.tokens)
            self.before = logits[self.kept_row, self.kept_at].float().log_softmax(-1)

    def losses(self, net: Hypernetwork) -> tuple[Tensor, Tensor]:
        """Edit loss (mean over the rows that must say the target), and KL (mean over the places that must stay)."""
        changes = net.changes(self.lm, self.batch.edits, self.factors, together=self.together)
        overlay = grouped_overlay(changes, self.row_groups, self.batch.groups)
        logits = self.lm.forward(self.tokens, overlays=[overlay] * len(self.batch.rows))
        edit = target_losses(logits, self.batch.rows)[self.wanted].mean()
        now = logits[self.kept_row, self.kept_at].float().log_softmax(-1)
        return edit, (self.before.exp() * (self.before - now)).sum(-1).mean()


@dataclass
class HyperTrainer:
    """Trains ``net`` for ``lm``; state is kept in ``folder`` after every run and every minute."""

    lm: LanguageModel
    net: Hypernetwork
    lessons: Lessons
    folder: Path
    settings: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        self.step, self.seconds, self.constraint = 0, 0.0, Constraint()
        self.net.to(self.lm.device).requires_grad_(True)
        steps = [p for name, p in self.net.named_parameters() if name == "steps"]
        rest = [p for name, p in self.net.named_parameters() if name != "steps"]
        self.base_lr = [self.settings.lr, self.settings.step_lr]
        self.adam = torch.optim.Adam([{"params": rest}, {"params": steps}], lr=self.settings.lr)
        self.parameters = [*rest, *steps]
        self._resume()

    def run(
        self,
        minutes: float | None = None,
        *,
        steps: int | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        """Trains until so many minutes, or so many steps, have been spent on this network, earlier runs included."""
        if minutes is None and steps is None:
            raise InvalidInput("Say how long to train: minutes or steps.")
        saved = started = time.perf_counter()
        spent = self.seconds
        edit = kl = 0.0
        while True:
            self.seconds = spent + time.perf_counter() - started
            share = max(self.seconds / (60 * minutes) if minutes else 0.0, self.step / steps if steps else 0.0)
            if progress:
                progress(min(share, 0.999), f"step {self.step}: edit loss {edit:.3f}, KL {kl:.4f}")
            if share >= 1:
                break
            edit, kl = self.one_step()
            if time.perf_counter() - saved > 60:
                self.save()
                saved = time.perf_counter()
        self.save()
        if progress:
            progress(1.0, f"{self.step} steps")

    def one_step(self) -> tuple[float, float]:
        """One step; returns edit loss and KL before it."""
        rng = random.Random(f"groups|{self.settings.seed}|{self.step}")
        lessons = self.lessons.draw(self.step, self.settings.lessons)
        batch = make_batch(self.lm, lessons, group_sizes(rng, len(lessons), self.settings.together))
        objective = Objective(self.lm, batch, self.net.modules_edited)
        if isinstance(self.net, MendNet):
            self.net.observe(objective.factors)
        with torch.enable_grad():
            edit, kl = objective.losses(self.net)
            constrained = self.net.kind == "ke"
            loss = edit + self.constraint.price * kl if constrained else self.settings.edit * edit + kl
            gradients = torch.autograd.grad(loss, self.parameters)
        self._apply(gradients)
        if constrained:
            self.constraint.update(float(kl.detach()))
        self.step += 1
        return float(edit.detach()), float(kl.detach())

    def _apply(self, gradients: Sequence[Tensor]) -> None:
        norm = torch.stack([g.norm() for g in gradients]).norm()
        if not bool(norm.isfinite()):
            log.warning("step %d: the gradient is not finite; the step is left out", self.step)
            return
        factor = (self.settings.clip / norm.clamp_min(1e-30)).clamp_max(1.0)
        rate = min(1.0, (self.step + 1) / self.settings.warm_up) * 0.5 ** (self.step / self.settings.halve)
        for group, lr in zip(self.adam.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * rate
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient * factor
        self.adam.step()
        self.adam.zero_grad()

    # ------------------------------------------------------------------------------------------------ its state

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.net.kind}-{self.lm.fingerprint[:16]}-state.safetensors"

    def save(self) -> None:
        """Writes the state of training, by which a later run goes on."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for number, parameter in enumerate(self.parameters):
            for name, value in self.adam.state.get(parameter, {}).items():
                tensors[f"adam.{number}.{name}"] = torch.as_tensor(value)
        header = {
            "step": str(self.step),
            "seconds": repr(self.seconds),
            "config": json.dumps(self.net.config()),
            "constraint": json.dumps([self.constraint.margin, self.constraint.price]),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, metadata=header)
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)

    def _resume(self) -> None:
        if not self._path.is_file():
            return
        with safe_open(self._path, framework="pt") as file:
            header: dict[str, Any] = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if json.loads(header["config"]) != json.loads(json.dumps(self.net.config())):
            raise InvalidInput(
                f"{self._path} holds a training with other settings of the network. "
                "Choose another folder, or remove it."
            )
        self.net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        for number, parameter in enumerate(self.parameters):
            state = {
                name.split(".", 2)[2]: value for name, value in tensors.items() if name.startswith(f"adam.{number}.")
            }
            if state:
                step = state.pop("step")
                self.adam.state[parameter] = {"step": step, **{k: v.to(parameter) for k, v in state.items()}}
        self.step, self.seconds = int(header["step"]), float(header["seconds"])
        self.constraint.margin, self.constraint.price = json.loads(header["constraint"])


# ------------------------------------------------------------------------------------------------------- held out


@dataclass(frozen=True)
class HeldOut:
    """Figures on facts and wordings that training never saw; rates between 0 and 1.

    An answer counts when every token of it is the model's first choice, the tokens before it given.
    """

    efficacy: float  # the request's own wordings
    generality: float  # wordings kept out of training
    locality: float  # answers of other facts that stay as they were
    edits: int
    together: int  # edits made at once

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@torch.no_grad()
def measure(lm: LanguageModel, net: Hypernetwork, lessons: Lessons, *, count: int = 100, together: int = 1) -> HeldOut:
    """Edits of ``lessons`` in groups of ``together``."""
    good: list[bool] = []
    reworded: list[bool] = []
    stayed: list[bool] = []
    drawn = lessons.draw(0, count)
    width = max(together, 16 // together * together)
    for start in range(0, count, width):
        part = drawn[start : start + width]
        batch = make_batch(lm, part, [together] * -(-len(part) // together))
        objective = Objective(lm, batch, net.modules_edited)
        changes = net.changes(lm, batch.edits, objective.factors, together=objective.together)
        overlay = grouped_overlay(changes, objective.row_groups, batch.groups)
        now = lm.forward(objective.tokens, overlays=[overlay] * len(batch.rows)).argmax(-1)
        before = lm.forward(objective.tokens).argmax(-1)
        own = {row.ids for item in fact_rows(lm, batch.edits) for row in [item.row]}
        for number, (row, must) in enumerate(zip(batch.rows, batch.is_edit, strict=True)):
            said = now[number, row.start - 1 : len(row.ids) - 1].tolist()
            if must:
                (good if row.ids in own else reworded).append(said == list(row.target))
            else:
                stayed.append(said == before[number, row.start - 1 : len(row.ids) - 1].tolist())
    return HeldOut(_rate(good), _rate(reworded), _rate(stayed), count, together)


def _rate(hits: Sequence[bool]) -> float:
    return sum(hits) / max(1, len(hits))
