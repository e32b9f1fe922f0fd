"""CaliNET (2210.03329): a small feed-forward beside a late one, trained on a batch of facts; everything else frozen.

    overlay = CaliNet().edit(lm, edits)

output + gelu(x K^T) V with 64 to 256 slots. The net is trained jointly on all facts of the batch in all their rows
(bare and behind prefixes, completion and chat), with ordinary text as a reminder of what must stay. One net holds the
whole batch: a batch is undone as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from editors.base import Editor, Hparams, Job
from editors.batches import RowTable
from editors.footprint import Footprint, Need, Sizes
from editors.memory_texts import sample_rows
from editors.passes import Suffix
from editors.problems import build_problems
from knowledge.edit import Edit
from language_model.adapters import AdapterModule, register_adapter
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Overlay


@dataclass(frozen=True)
class CaliNetSettings(Hparams):
    """Settings; slots as in the paper."""

    layer: int | None = None  # None: the last but one
    slots: int = 64
    steps: int = 200
    lr: float = 0.09  # of the keys, in units of 1 / sqrt(in), their size at the start
    lr_values: float = 0.0026  # of the values, in units of what the layer's feed-forward puts out (root mean square)
    stop_loss: float = 0.05
    prefixes: int = 4
    retain: float = 1.0  # weight of KL on ordinary text
    retain_tokens: int = 600


@register_adapter("calinet")
class SideNet(AdapterModule):
    """The side net. ``keys`` (slots, in), ``values`` (slots, out); ``unit`` scales the input to a root mean square
    of 1.
    """

    unit: Tensor

    def __init__(self, slots: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.slots, self.width_in, self.width_out = slots, width_in, width_out
        self.keys = nn.Parameter(torch.zeros(slots, width_in))
        self.values = nn.Parameter(torch.zeros(slots, width_out))
        self.register_buffer("unit", torch.ones(1))

    def config(self) -> dict[str, Any]:
        return {"slots": self.slots, "width_in": self.width_in, "width_out": self.width_out}

    def added(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return nn.functional.gelu((input / self.unit) @ self.keys.T) @ self.values

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        return output + self.added(input)


class CaliNet(Editor[CaliNetSettings]):
    """Calibration of a batch of facts by a side memory."""

    name: ClassVar[str] = "calinet"
    title: ClassVar[str] = "CaliNET"
    paper: ClassVar[str] = "2210.03329"
    kind: ClassVar[str] = "adapter"
    Settings = CaliNetSettings
    LAYER_RULE: ClassVar[str] = "the last layer but one"

    def settings(self, lm: LanguageModel) -> CaliNetSettings:
        found = super().settings(lm)
        return found if found.layer is not None else replace(found, layer=max(0, lm.num_layers - 2))

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: CaliNetSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        assert settings.layer is not None
        sizes = Sizes(lm, edits)
        rows, width = sizes.rows(settings.prefixes), sizes.width(10)
        step = sizes.jointly(rows, width, settings.layer) + sizes.logits(2 * settings.retain_tokens)
        return Footprint((), (Need("gradients of all edits and of ordinary text", device=step),))

    def compute(self, job: Job, settings: CaliNetSettings) -> Overlay:
        assert settings.layer is not None
        lm, layer = job.lm, settings.layer
        prefixes = self.moments.prefixes.get(lm, count=settings.prefixes, seed=settings.seed)
        table = RowTable(lm, build_problems(lm, job.edits, prefixes, essence=()), layer)
        reminder = Reminder(lm, sample_rows(lm, self.moments, settings.retain_tokens, settings.seed), layer)
        suffix = table.suffix
        net = SideNet(settings.slots, suffix.read.shape[-1], suffix.values.shape[-1]).to(lm.device)
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.no_grad():
            net.unit.fill_(float(suffix.read[suffix.mask].float().square().mean().sqrt()))
            net.keys.copy_(torch.randn(net.keys.shape, generator=generator) / net.keys.shape[1] ** 0.5)
        usual = float(suffix.values[suffix.mask].float().square().mean().sqrt())
        groups = [
            {"params": [net.keys], "lr": settings.lr / net.keys.shape[1] ** 0.5},
            {"params": [net.values], "lr": settings.lr_values * usual},
        ]
        optimiser = torch.optim.Adam(groups)
        for step in range(settings.steps):
            job.progress(step / settings.steps, f"side net: step {step + 1} of {settings.steps}")
            with torch.enable_grad():
                hidden = suffix.with_change(net.added(suffix.read.float()), table.every)
                losses = table.target_losses(hidden, table.every)
                edit = (losses * table.weight).sum() / len(job.edits)
                kept = reminder.divergence(net)
                gradients = torch.autograd.grad(edit + settings.retain * kept, [net.keys, net.values])
            if float(losses.detach().max()) < settings.stop_loss and float(kept) < settings.stop_loss:
                break
            for parameter, gradient in zip((net.keys, net.values), gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
        net = net.requires_grad_(False).cpu()
        return Overlay({lm.architecture.mlp(layer): (Adapter(net),)})


class Reminder:
    """Ordinary text, and what the model says to it before the net."""

    def __init__(self, lm: LanguageModel, rows: list[list[int]], layer: int) -> None:
        self.suffix = Suffix(lm, rows, layer)
        self.every = torch.arange(len(rows), device=lm.device)
        with torch.no_grad():
            still = self.suffix.with_change(torch.zeros_like(self.suffix.values), self.every)
            self.before = self.suffix.head(still[self.suffix.mask]).log_softmax(-1)

    def divergence(self, net: SideNet) -> Tensor:
        """Mean KL(before | with the net) over the tokens."""
        hidden = self.suffix.with_change(net.added(self.suffix.read.float()), self.every)
        now = self.suffix.head(hidden[self.suffix.mask]).log_softmax(-1)
        return (self.before.exp() * (self.before - now)).sum(-1).mean()
