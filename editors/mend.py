"""MEND (2110.11309): a trained network turns the gradient of one edit into a change that holds and stays local.

    overlay = Mend().edit(lm, [edit])              # one backward pass and a small network: the fastest edit there is

For every token the factors (x, delta) of the gradient are normalised by statistics kept from training, joined, and put
through a small network that starts as the identity (2110.11309, section 3.2 and eq. 4):

    h = z + scale_l * relu(U1 V1 z + b) + shift_l,     (x~ | delta~) = h + scale'_l * (U2 V2 h + b') + shift'_l
    W <- W - alpha_l sum over tokens of x~ delta~^T

Layers of one shape share the network; scale, shift and the step alpha are each layer's own. Train one with
``python -m app train mend``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from editors.base import Editor, Hparams, Job
from editors.footprint import Footprint, Need, Sizes
from editors.hypernetworks import (
    BLOCKS,
    TRAINED,
    Changes,
    Factors,
    Hypernetwork,
    edited_modules,
    fact_rows,
    gradient_factors,
    load_network,
    scales_of,
    shapes_of,
)
from editors.memit import compact
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Overlay

START = 0.2  # first step: what it adds at a token's own output, in units of that output's usual size: firm, and then
# training takes back what is not local


@dataclass(frozen=True)
class MendSettings(Hparams):
    """Settings of an edit; those of the network are fixed when it is trained."""

    strength: float = 1.0  # multiplies the learned step: above 1 the edit is firmer and less local
    chunk: int = 16  # edits whose gradients are computed in one pass


class RunningStatistics(nn.Module):
    """Mean and spread of vectors seen in training (parallel form of Welford's sums)."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("squares", torch.zeros(width))

    def update(self, rows: Tensor) -> None:
        """Takes in (n, width)."""
        if not len(rows):
            return
        total = self.count + len(rows)
        mean = rows.mean(0)
        gap = mean - self.mean
        self.squares += (rows - mean).square().sum(0) + gap.square() * self.count * len(rows) / total
        self.mean += gap * len(rows) / total
        self.count += len(rows)

    def forward(self, rows: Tensor) -> Tensor:
        """Normalised rows. One sample has no spread, so two are needed before anything is scaled."""
        if float(self.count) < 2:
            return rows
        spread = (self.squares / (self.count - 1)).sqrt()
        return (rows - self.mean) / spread.clamp_min(1e-3 * spread.mean() + 1e-30)


class ResidualLayer(nn.Module):
    """z + scale_l * act(U V z + b) + shift_l, with a scale and a shift for each of several modes; starts at z."""

    def __init__(self, width: int, rank: int, modes: int, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.u = nn.Parameter(torch.zeros(rank, width))
        self.v = nn.Parameter(torch.randn(width, rank) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(modes, width))
        self.shift = nn.Parameter(torch.zeros(modes, width))

    def forward(self, z: Tensor, mode: int) -> Tensor:
        inner = (z @ self.v) @ self.u + self.bias
        inner = self.scale[mode] * inner + self.shift[mode]
        return z + (inner.relu() if self.relu else inner)


class MendNet(Hypernetwork):
    """The editing network of all edited modules.

    Args:
        shapes: (in, out) of each module; scales: root mean square of its weight.
        rank: of the network's two layers.
        seed: of their random half.
    """

    kind: ClassVar[str] = "mend"

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], scales: Mapping[str, float], rank: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        self.shapes = {name: (int(shape[0]), int(shape[1])) for name, shape in shapes.items()}
        self.scales, self.rank, self.seed = dict(scales), rank, seed
        kinds = list(dict.fromkeys(self.shapes.values()))
        self._place = {}
        for shape in kinds:
            for mode, name in enumerate(name for name, own in self.shapes.items() if own == shape):
                self._place[name] = kinds.index(shape), mode
        self.nets = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for shape in kinds:
                modes = sum(own == shape for own in self.shapes.values())
                width = sum(shape)
                low = min(rank, width)
                self.nets.append(
                    nn.ModuleList([ResidualLayer(width, low, modes, True), ResidualLayer(width, low, modes, False)])
                )
        self.inputs = nn.ModuleList([RunningStatistics(shape[0]) for shape in self.shapes.values()])
        self.deltas = nn.ModuleList([RunningStatistics(shape[1]) for shape in self.shapes.values()])
        self.steps = nn.Parameter(torch.zeros(len(self.shapes)))  # log of the step, in units of its start

    @classmethod
    def for_model(cls, lm: LanguageModel, *, blocks: int = 3, rank: int = 64, seed: int = 0) -> MendNet:
        modules = edited_modules(lm, blocks)
        return cls(shapes_of(lm, modules), scales_of(lm, modules), rank, seed)

    def config(self) -> dict[str, Any]:
        return {"shapes": self.shapes, "scales": self.scales, "rank": self.rank, "seed": self.seed}

    @property
    def modules_edited(self) -> list[str]:
        return list(self.shapes)

    def observe(self, factors: Mapping[str, Factors]) -> None:
        """Takes factors into the running statistics; in training only."""
        for number, name in enumerate(self.shapes):
            self.inputs[number].update(factors[name].x)  # type: ignore[operator]
            self.deltas[number].update(factors[name].delta)  # type: ignore[operator]

    def changes(
        self,
        lm: LanguageModel,
        edits: Sequence[Edit],
        factors: Mapping[str, Factors],
        *,
        together: Tensor | None = None,
        base: Overlay | None = None,
    ) -> Changes:
        made: Changes = {}
        for number, (name, shape) in enumerate(self.shapes.items()):
            taken = factors[name]
            group, mode = self._place[name]
            z = torch.cat([self.inputs[number](taken.x), self.deltas[number](taken.delta)], 1)
            for layer in self.nets[group].children():
                z = layer(z, mode)
            step = START * self.scales[name] / shape[0] ** 0.5 * self.steps[number].exp()
            made[name] = -step * z[:, : shape[0]], z[:, shape[0] :], taken.owner
        return made


class Mend(Editor[MendSettings]):
    """Editing by transformed gradients. A batch is the sum of its single edits, as the network was trained."""

    name: ClassVar[str] = "mend"
    title: ClassVar[str] = "MEND"
    paper: ClassVar[str] = "2110.11309"
    Settings = MendSettings
    Net: ClassVar[type[Hypernetwork]] = MendNet
    NETWORK: ClassVar[int] = 256  # numbers of the network for each input and output of a module, at most

    def check(
        self, lm: LanguageModel, edits: Sequence[Edit], *, base: Overlay | None = None, earlier: Sequence[Edit] = ()
    ) -> None:
        super().check(lm, edits, base=base, earlier=earlier)
        self.network(lm)

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: MendSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        sizes, modules = Sizes(lm, edits), edited_modules(lm)
        wide = sum(map(sum, shapes_of(lm, modules).values()))  # in + out of all edited modules
        rows, width = min(sizes.rows(), 2 * settings.chunk), sizes.width()
        gradients = sizes.learning(rows, width, min(BLOCKS, lm.num_layers)) + sizes.logits(rows * width)
        kept = (
            Need("the network", device=4 * wide * self.NETWORK),
            Need("the changes", host=2 * 4 * wide * sizes.rows() * width),
        )
        return Footprint(kept, (Need("gradients", device=gradients + 6 * 4 * wide * rows * width),))

    def network(self, lm: LanguageModel) -> Hypernetwork:
        """The trained network of this model: shipped, or beside the second moments.

        Raises:
            EditRefused: there is none.
        """
        return load_network(self.Net, lm, [TRAINED, self.moments.cache_dir])

    def read_under(self, job: Job, edits: Sequence[Edit]) -> Overlay | None:
        """What is active while the gradients of ``edits`` are taken: all earlier edits."""
        return job.base

    def compute(self, job: Job, settings: MendSettings) -> Overlay:
        net = self.network(job.lm)
        pieces: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in net.modules_edited}
        for start in range(0, len(job.edits), settings.chunk):
            job.progress(start / len(job.edits), f"gradients: edit {start + 1} of {len(job.edits)}")
            edits = job.edits[start : start + settings.chunk]
            with job.lm.overlaid(self.read_under(job, edits)):
                factors = gradient_factors(job.lm, fact_rows(job.lm, edits), net.modules_edited)
            together = torch.full((len(edits),), len(job.edits), device=job.lm.device)
            with torch.no_grad():
                for name, (u, v, _) in net.changes(job.lm, edits, factors, together=together, base=job.base).items():
                    pieces[name].append((settings.strength * u.T.cpu(), v.cpu()))
        return Overlay(
            {
                name: (compact(torch.cat([u for u, _ in parts], 1), torch.cat([v for _, v in parts], 0)),)
                for name, parts in pieces.items()
            }
        )
