"""ROME (2202.05262) and R-ROME (2403.07175): one fact is one rank-one change of one down-projection.

    overlay = RRome().edit(lm, [edit])

With k* the subject's key, v* its target value and C the second moment of keys,

    W += (v* - W k) (C^-1 k*)^T / (k . C^-1 k*)                                    (2202.05262, eq. 2)

where k is k* again in R-ROME, and the bare prompt's key in the released ROME, whose k* is a mean over prefixed prompts.
That mismatch is what makes sequences of released-ROME edits collapse (2403.07175, section 4).

A plain R-ROME counts on the keys of earlier facts being orthogonal to what it writes. Here they are spared; in shallow
models, where they never are, instead every twentieth fact those that fell are learned again, over a few layers that end
at the edited one, and from then on values end where the own prompts say the answer (``light``) and each change is made
only as strong as its own wording needs (:mod:`editors.rehearsal`). ``protect=0, repair=0`` is the published way.

R-ROME's key is a mean over prompts, and a single prompt's key meets only a part of it: 0.6 to 1.4 of the change arrives
on our bundled model. So v* is sought under just these shares ("dosed"), which costs nothing; the papers optimise as if
every prompt got all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from editors.base import Editor, Hparams, Job
from editors.compacting import compacted
from editors.earlier import earlier_keys, spared
from editors.footprint import Footprint, Need, Sizes
from editors.keys import mean_by_group, subject_activations
from editors.presets import layer_window, patient, repaired_every
from editors.problems import ESSENCE, build_problems
from editors.rehearsal import REHEARSAL, RehearsalSettings, lightest, rehearsal_stage, rehearsed
from editors.values import ValueSettings, check_layer, optimise_values
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay

KeyChoice = Literal["released", "mean", "prompt"]


VALUES = ValueSettings()
LIGHT = replace(VALUES, decay=0.1, stop_loss=0.3, stride=0.05, said=True)
REHEARSED = replace(REHEARSAL, least=1)
RELEASED_VALUES = ValueSettings(rule="adam")
REPAIR = 20  # facts, in shallow models
PROTECT = 0.001


@dataclass(frozen=True)
class RomeSettings(Hparams):
    """ROME's settings; the defaults are the paper's for GPT-2 XL, made relative (see ``values``)."""

    layer: int | None = None  # None: from a causal trace of the model, or derived from its depth
    key: KeyChoice = "mean"  # where the key is taken: see the module
    prefixes: int = 20  # sampled texts before the prompt
    prefix_lengths: tuple[int, ...] = (5, 10)  # in tokens, equal shares
    essence: tuple[str, ...] = ESSENCE  # wordings about the subject that must read on as before
    values: ValueSettings = VALUES
    second_moments: bool = True  # False: C is the identity, for the paper's ablation; nothing is spared or repaired
    # with key "mean": what an earlier fact's key weighs beside all ordinary ones; None: only where nothing is repaired
    protect: float | None = None
    # with key "mean": after so many facts those that fell are learned again, and so many of a call are written in a
    # round; 0: never, and all together
    repair: int | None = None
    rehearsal: RehearsalSettings = REHEARSED
    light: ValueSettings = LIGHT  # values from the fact on from which others are learned again: hundreds have to fit
    dosed: bool = True  # with key "mean": find v* under the change that each row will really get (see the module)


PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": {"layer": 5},
    "gpt2-medium": {"layer": 8},  # the released settings
    "gpt2-large": {"layer": 12},
    "gpt2-xl": {"layer": 17},
    "gpt-j-6b": {"layer": 5},
    "gpt-neox-20b": {"layer": 15},
    "pythia-6.9b": {"layer": 5},
    "llama-7b": {"layer": 5},  # as EasyEdit (2308.07269) for Llama 2 and 3
    "llama-13b": {"layer": 5},
    "llama-3.2-1b": {"layer": 5},
    "llama-3.2-3b": {"layer": 5},
    "mistral-7b": {"layer": 5},
    "qwen2.5-7b": {"layer": 5},
    "qwen3-8b": {"layer": 5},
}


SCALED = frozenset({"gpt2", "pythia-6.9b", "llama-13b", "qwen3-8b"})  # ours, at the depth published for their kin


def rank_one(direction: Tensor, key: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of the change that maps ``key`` to ``gap`` and works along ``direction``.

    Args:
        direction: (in,) C^-1 k*.
        key: (in,) k, where the change must give the whole gap.
        gap: (out,) v* - W k.

    Returns:
        u (in, 1) and v (1, out) with key @ u @ v = gap.
    """
    scale = torch.dot(key, direction)
    u = direction / direction.norm()
    return u[:, None], (gap * (direction.norm() / scale))[None, :]


class Rome(Editor[RomeSettings]):
    """The released form: mean key for the direction, bare prompt's key for the gap."""

    name: ClassVar[str] = "rome"
    title: ClassVar[str] = "ROME"
    paper: ClassVar[str] = "2202.05262"
    Settings = RomeSettings
    SCALED: ClassVar[frozenset[str]] = SCALED
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: {**preset, "key": "released"} for name, preset in PRESETS.items()
    }
    default_key: ClassVar[KeyChoice] = "released"
    default_values: ClassVar[ValueSettings] = RELEASED_VALUES

    def settings(self, lm: LanguageModel) -> RomeSettings:
        found = super().settings(lm)
        if "key" not in self.overrides:
            found = replace(found, key=self.default_key)
        if "values" not in self.overrides:
            found = replace(found, values=self.default_values)
        elif "light" not in self.overrides:
            found = replace(found, light=found.values)
        found = replace(found, repair=repaired_every(lm, found.repair, REPAIR))
        if found.protect is None:  # beside rehearsal it made no difference to 200 facts, and reads all keys each time
            found = replace(found, protect=0.0 if found.repair else PROTECT)
        if found.layer is not None:
            return found
        values, light = patient(lm, found.values), patient(lm, found.light)
        return replace(found, layer=self.derived_layer(lm).layer, values=values, light=light)

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: RomeSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        assert settings.layer is not None
        rounds = self._rehearses(settings)
        together = min(len(edits), settings.repair or len(edits)) if rounds else len(edits)
        sizes, longest = Sizes(lm, edits, together), max(settings.prefix_lengths, default=0)
        rows, width = sizes.rows(settings.prefixes), sizes.width(longest)
        kept = [sizes.changes(len(edits))]
        stages = [
            sizes.reading_keys(rows, width),
            sizes.values(rows, width, settings.layer, settings.values.tokens),
        ]
        if settings.second_moments:
            layers = layer_window(lm, ends_at=settings.layer) if rounds else (settings.layer,)
            kept.append(sizes.moments(len(layers), resident=self.moments.resident))
            if rounds:
                stages.append(rehearsal_stage(sizes, len(layers)))
                kept.append(Need("what earlier rounds learned", host=sizes.matrix(len(layers))))
            if settings.key == "mean" and settings.protect:
                kept.append(sizes.protecting(len(earlier) + len(edits) - together, 1))
        return Footprint(tuple(kept), tuple(stages))

    @staticmethod
    def _rehearses(settings: RomeSettings) -> bool:
        return settings.key == "mean" and settings.second_moments and bool(settings.repair)

    def compute(self, job: Job, settings: RomeSettings) -> Overlay:
        """Where facts are learned again, many of them are taken round by round; all are asked after the last one."""
        if not self._rehearses(settings):
            return self.change(job, settings)
        assert settings.repair is not None
        made, count = Overlay.empty(), len(job.edits)
        for start in range(0, count, settings.repair):
            end = min(start + settings.repair, count)
            base, earlier = job.base + made, [*job.earlier, *job.edits[:start]]
            turn = Job(job.lm, job.edits[start:end], base, earlier, job.part(start / count, end / count))
            with job.lm.overlaid(base):
                last = self._round(turn, settings, settings.repair, all_now=start > 0 and end == count)
            made = compacted(made + last) if start else last
        return made

    def _round(self, job: Job, settings: RomeSettings, every: int, *, all_now: bool) -> Overlay:
        window = layer_window(job.lm, ends_at=settings.layer)
        if len(job.earlier) < every:  # few may change much, so that other wordings come right too
            made = self.change(job, settings)
        else:
            made = self.change(job, replace(settings, values=settings.light))
            made = lightest(job, lambda share: _weaker(made, share), window, settings.rehearsal)
        return rehearsed(
            job, made, window, self.moments, settings.rehearsal, every=every, all_now=all_now, seed=settings.seed
        )

    def change(self, job: Job, settings: RomeSettings) -> Overlay:
        """Several edits: values are found together, changes made one after another, each exact."""
        assert settings.layer is not None
        lm, layer = job.lm, settings.layer
        check_layer(lm, layer)
        prefixes = self.moments.prefixes.get(
            lm, count=settings.prefixes, lengths=settings.prefix_lengths, seed=settings.seed
        )
        problems = build_problems(lm, job.edits, prefixes, essence=settings.essence)
        rows = [row for problem in problems for row in (*problem.rows, *problem.essence)]
        groups = [number for number, problem in enumerate(problems) for _ in (*problem.rows, *problem.essence)]
        weights = torch.tensor([w for problem in problems for w in (*problem.weights, *(0.0 for _ in problem.essence))])
        taken = subject_activations(lm, rows, [layer])[layer]
        starts = [groups.index(number) + problem.bare[0] for number, problem in enumerate(problems)]
        mean_keys, mean_values = (mean_by_group(part, groups, weights) for part in (taken.keys, taken.values))
        bare_keys, bare_values = taken.keys[starts], taken.values[starts]
        directions = bare_keys if settings.key == "prompt" else mean_keys
        at, current = (mean_keys, mean_values) if settings.key == "mean" else (bare_keys, bare_values)
        if settings.second_moments:
            moment = self.moments.get(lm, [layer], job.part(0.0, 0.2))[layer]
            directions = moment.solve(directions.T).T
            if settings.key == "mean" and settings.protect:
                directions = spared(moment, earlier_keys(job, [layer], layer), directions, settings.protect)
        dosed = settings.dosed and settings.key == "mean"
        doses = _doses(taken.keys, directions, at, groups) if dosed else None
        values = optimise_values(lm, problems, layer, settings.values, job.part(0.2, 0.95), doses)
        gaps = values.delta if dosed else values.target - current
        u, v = sequence_of_rank_ones(directions, at, gaps)
        return Overlay({lm.architecture.down(layer): (LowRank(u.float(), v.float()),)})


def _weaker(made: Overlay, share: Tensor) -> Overlay:
    """The rank-one change of each edit times its share."""
    ((name, part),) = made
    assert isinstance(part, LowRank)
    return Overlay({name: (LowRank(part.u, part.v * share[:, None]),)})


def _doses(keys: Tensor, directions: Tensor, at: Tensor, groups: list[int]) -> list[Tensor]:
    """How much of its gap each row's key gets: k . C^-1 k* / (k* . C^-1 k*); a tensor an edit."""
    index = torch.tensor(groups)
    share = (keys * directions[index]).sum(1) / (at * directions).sum(1)[index]
    return [share[index == number] for number in range(len(directions))]


def sequence_of_rank_ones(directions: Tensor, keys: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Rank-one changes one after another; each gap counts what the earlier ones already do to its key.

    Args:
        directions: (edits, in).
        keys: (edits, in).
        gaps: (edits, out), in the model before the first change. (Keys lie below the layer, so they stay.)

    Returns:
        u (in, edits) and v (edits, out).
    """
    us: list[Tensor] = []
    vs: list[Tensor] = []
    for direction, key, gap in zip(directions, keys, gaps, strict=True):
        done = (key @ torch.cat(us, 1)) @ torch.cat(vs, 0) if us else torch.zeros_like(gap)
        u, v = rank_one(direction, key, gap - done)
        us.append(u)
        vs.append(v)
    return torch.cat(us, 1), torch.cat(vs, 0)


class RRome(Rome):
    """ROME with one key throughout."""

    name: ClassVar[str] = "r-rome"
    title: ClassVar[str] = "R-ROME"
    paper: ClassVar[str] = "2403.07175"
    PRESETS = PRESETS
    default_key: ClassVar[KeyChoice] = "mean"
    default_values: ClassVar[ValueSettings] = VALUES
