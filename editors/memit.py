"""MEMIT (2210.07229): many facts at once, spread over a few consecutive layers.

    overlay = Memit().edit(lm, edits)

Target values z are found at the last layer of the range. Then, from the first layer to the last, each takes its share
of what is still missing: with K the keys (in, edits), R the missing rest over the layers left (out, edits),

    delta = R K^T (lambda C + K K^T)^-1                                        (2210.07229, eq. 14 and algorithm 1)

in float64. Later layers see what the earlier ones did, because the overlay so far is active while K and R are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.base import Editor, EditRefused, Hparams, Job
from editors.footprint import Footprint, Sizes
from editors.keys import Activations, mean_by_group, subject_activations
from editors.presets import SHALLOW, layer_window, patient
from editors.problems import ESSENCE, Problem, build_problems
from editors.statistics import SecondMoment
from editors.values import ValueSettings, optimise_values
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank, Overlay

VALUES = ValueSettings(rule="adam", clamp=0.75, reference="hidden")  # the released settings for GPT-2 XL


@dataclass(frozen=True)
class MemitSettings(Hparams):
    """MEMIT's settings; the defaults are the paper's for GPT-2 XL, made relative."""

    layers: tuple[int, ...] | None = None  # consecutive; None: up to a causal trace's layer, or derived from the depth
    prefixes: int = 5  # as released: fewer than ROME, since a batch holds many rows already
    prefix_lengths: tuple[int, ...] = (10,)
    essence: tuple[str, ...] = ESSENCE
    values: ValueSettings = VALUES
    weight: float = 3.0  # lambda, for each input of the layer: the released 20,000 at GPT-2 XL's 6,400 inputs


PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": {"layers": (3, 4, 5, 6, 7)},
    "gpt2-medium": {"layers": (6, 7, 8, 9, 10)},
    "gpt2-large": {"layers": (9, 10, 11, 12, 13)},
    "gpt2-xl": {"layers": (13, 14, 15, 16, 17)},
    "gpt-j-6b": {"layers": (3, 4, 5, 6, 7, 8)},
    "gpt-neox-20b": {"layers": (6, 7, 8, 9, 10)},
    "pythia-6.9b": {"layers": (4, 5, 6, 7, 8)},
    "llama-7b": {"layers": (4, 5, 6, 7, 8)},
    "llama-13b": {"layers": (4, 5, 6, 7, 8)},
    "llama-3.2-1b": {"layers": (4, 5, 6, 7, 8)},
    "llama-3.2-3b": {"layers": (4, 5, 6, 7, 8)},
    "mistral-7b": {"layers": (4, 5, 6, 7, 8)},
    "qwen2.5-7b": {"layers": (4, 5, 6, 7, 8)},
    "qwen3-8b": {"layers": (4, 5, 6, 7, 8)},
}
# Ours, at the depth published for their kin; ROME's layer where there is one ends the window.
SCALED = frozenset({"gpt2", "gpt2-medium", "gpt2-large", "pythia-6.9b", "llama-13b", "qwen3-8b"})


def ridge_factors(moment: SecondMoment, keys: Tensor, rest: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """delta = (lambda C + K K^T)^-1 K R^T as factors, float64.

    Through the identity (lambda C + K K^T)^-1 K = C^-1 K (lambda I + K^T C^-1 K)^-1 only an edits x edits matrix is
    solved, and C's Cholesky factor, known already, is used again.

    Args:
        keys: (in, edits).
        rest: (edits, out).

    Returns:
        u (in, edits) and v (edits, out).
    """
    solved = moment.solve(keys)
    inner = keys.T @ solved
    inner.diagonal().add_(weight)
    return solved, torch.linalg.solve(inner, rest)


def compact(u: Tensor, v: Tensor) -> LowRank | Dense:
    """The change in whichever form is smaller."""
    smaller = u.shape[1] * (u.shape[0] + v.shape[1]) <= u.shape[0] * v.shape[1]
    return LowRank(u.float(), v.float()) if smaller else Dense((u @ v).float())


class Memit(Editor[MemitSettings]):
    """Mass editing over several layers."""

    name: ClassVar[str] = "memit"
    title: ClassVar[str] = "MEMIT"
    paper: ClassVar[str] = "2210.07229"
    Settings = MemitSettings
    PRESETS = PRESETS
    SCALED: ClassVar[frozenset[str]] = SCALED

    def settings(self, lm: LanguageModel) -> MemitSettings:
        found = super().settings(lm)
        if found.layers:
            return found
        found = replace(
            found, layers=layer_window(lm, ends_at=self.derived_layer(lm).layer), values=patient(lm, found.values)
        )
        if lm.num_layers > SHALLOW or "weight" in self.overrides:
            return found
        # the published balance holds back most of a change; on our bundled model (6 layers, 20 edits) it gave .75
        # in the completion form and .60 in chat, a tenth of it .95 and 1.00, with nothing else lost
        return replace(found, weight=min(found.weight, 0.3))

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: MemitSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        assert settings.layers is not None
        sizes, longest = Sizes(lm, edits), max(settings.prefix_lengths, default=0)
        rows, width, layers = sizes.rows(settings.prefixes), sizes.width(longest), len(settings.layers)
        kept = (
            sizes.moments(layers, factors=self.factors(settings), resident=self.moments.resident),
            sizes.changes(len(edits), layers),
        )
        stages = (
            sizes.reading_keys(rows, width),
            sizes.values(rows, width, max(settings.layers), settings.values.tokens),
            sizes.solving(len(edits)),
        )
        return Footprint(kept, stages)

    def factors(self, settings: MemitSettings) -> int:
        """Matrices of C's size that are made of it for the solve: here its Cholesky factor."""
        return 1

    def compute(self, job: Job, settings: MemitSettings) -> Overlay:
        assert settings.layers is not None
        lm, layers = job.lm, sorted(settings.layers)
        prefixes = self.moments.prefixes.get(
            lm, count=settings.prefixes, lengths=settings.prefix_lengths, seed=settings.seed
        )
        problems = build_problems(lm, job.edits, prefixes, essence=settings.essence)
        spread = Spread(lm, problems, layers)
        values = optimise_values(lm, problems, layers[-1], settings.values, job.part(0.0, 0.6))
        moments = self.moments.get(lm, layers, job.part(0.6, 0.8))
        made = Overlay.empty()
        for number, layer in enumerate(layers):
            job.progress(0.8 + 0.15 * number / len(layers), f"layer {layer}")
            keys, rest = spread.at(layer, job.base + made, values.delta)
            u, v = self.change(job, settings, layer, moments[layer], keys, rest / (len(layers) - number))
            made = made + Overlay({lm.architecture.down(layer): (compact(u, v),)})
        return made

    def change(
        self, job: Job, settings: MemitSettings, layer: int, moment: SecondMoment, keys: Tensor, rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One layer's change as factors u (in, r), v (r, out), float64.

        Args:
            keys: (edits, in).
            rest: (edits, out), what this layer has to add at these keys.
        """
        return ridge_factors(moment, keys.T, rest, settings.weight * keys.shape[1])


class Spread:
    """Reads keys and what is still missing while the layers' changes grow.

    The missing rest is d less how far the bare prompts' hidden state at the last layer has moved, averaged over the
    forms (completion and chat).

    Raises:
        EditRefused: the family normalises the feed-forward's output, so that layers cannot share a change of it.
    """

    def __init__(self, lm: LanguageModel, problems: list[Problem], layers: list[int]) -> None:
        from editors.passes import Suffix

        first = problems[0].rows[problems[0].bare[0]]
        if len(layers) > 1 and not Suffix(lm, [first.ids[: first.subject + 1]], layers[-1]).additive:
            raise EditRefused(
                f"{lm.name} ({lm.architecture.model_type}) normalises what the feed-forward adds, "
                f"so a change cannot be "
                f"shared by several layers. Use one layer, for example layers=({layers[-1]},), or R-ROME."
            )
        self.lm, self.last = lm, layers[-1]
        self.rows = [row for problem in problems for row in problem.rows]
        self.groups = [number for number, problem in enumerate(problems) for _ in problem.rows]
        self.weights = torch.tensor([weight for problem in problems for weight in problem.weights])
        self.bare: list[int] = []
        self.owner: list[int] = []
        offset = 0
        for number, problem in enumerate(problems):
            self.bare += [offset + index for index in problem.bare]
            self.owner += [number] * len(problem.bare)
            offset += len(problem.rows)
        self.single = len(layers) == 1
        self.start = self._hidden(subject_activations(lm, [self.rows[i] for i in self.bare], [self.last]))

    def _hidden(self, taken: dict[int, Activations]) -> Tensor:
        return mean_by_group(taken[self.last].hidden, self.owner)

    def at(self, layer: int, overlay: Overlay, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (edits, in) of one layer and the missing rest (edits, out), both under ``overlay``."""
        with self.lm.overlaid(overlay):
            taken = subject_activations(self.lm, self.rows, [layer])[layer]
            keys = mean_by_group(taken.keys, self.groups, self.weights)
            if self.single:
                return keys, delta
            now = self._hidden(subject_activations(self.lm, [self.rows[i] for i in self.bare], [self.last]))
        return keys, delta - (now - self.start)
