"""Fine-tuning baselines on one down-projection: FT-L with a bounded change, FT-M without.

    overlay = FtM().edit(lm, [edit])

Both train one matrix by Adam on the target's tokens only. FT-L (constrained fine-tuning, 2012.00363, section 4; ROME's
"FT+L") clamps every entry of the change to a small bound after each step,
which keeps other facts and often keeps the old one too.
FT-M (2308.07269's strongest fine-tuning baseline) masks the prompt out of the loss and has no bound.
A batch is trained jointly; a sequence is one overlay after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from editors.adam import RowAdam
from editors.base import Editor, Hparams, Job
from editors.batches import RowTable
from editors.footprint import Footprint, Need, Sizes
from editors.passes import down_projection
from editors.problems import build_problems
from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import Dense, Overlay


@dataclass(frozen=True)
class FtSettings(Hparams):
    """Settings of both. Sizes are in units of the root mean square of the layer's weights."""

    layer: int | None = None  # None: late, two thirds of the depth
    steps: int = 25  # as in ROME's baselines
    lr: float = 0.01  # of Adam: 5e-4 at GPT-2 XL's weights of about 0.05
    bound: float | None = None  # largest entry of the change; None: unbounded
    stop_loss: float = 0.05  # done when every edit's loss is below
    prefixes: int = 0  # sampled texts before the prompt; the baselines have none


class FtM(Editor[FtSettings]):
    """Fine-tuning of one layer on the target tokens."""

    name: ClassVar[str] = "ft-m"
    title: ClassVar[str] = "FT-M"
    paper: ClassVar[str] = "2308.07269"
    Settings = FtSettings
    LAYER_RULE: ClassVar[str] = "two thirds of the depth"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt2-xl": {"layer": 21},
        "gpt-j-6b": {"layer": 21},
        "llama-7b": {"layer": 21},
        "llama-13b": {"layer": 21},
        "mistral-7b": {"layer": 21},
        "qwen2.5-7b": {"layer": 21},
    }

    def settings(self, lm: LanguageModel) -> FtSettings:
        found = super().settings(lm)
        return found if found.layer is not None else replace(found, layer=round(2 / 3 * (lm.num_layers - 1)))

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: FtSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        assert settings.layer is not None
        sizes = Sizes(lm, edits)
        rows, width = sizes.rows(settings.prefixes), sizes.width(10 if settings.prefixes else 0)
        kept = Need("the matrix and its optimiser", host=sizes.matrix(1), device=sizes.matrix(6))
        return Footprint((kept,), (Need("gradients of all edits", device=sizes.jointly(rows, width, settings.layer)),))

    def compute(self, job: Job, settings: FtSettings) -> Overlay:
        assert settings.layer is not None
        lm, layer = job.lm, settings.layer
        prefixes = self.moments.prefixes.get(lm, count=settings.prefixes, seed=settings.seed)
        table = RowTable(lm, build_problems(lm, job.edits, prefixes, essence=()), layer)
        weight = weight_in_out(down_projection(lm, layer)).detach()
        unit = float(weight.float().square().mean().sqrt())
        keys = table.suffix.keys
        delta = torch.zeros_like(weight, dtype=torch.float32)
        adam, every = RowAdam(delta, settings.lr * unit), torch.arange(delta.shape[0], device=delta.device)
        for step in range(settings.steps):
            job.progress(step / settings.steps, f"step {step + 1} of {settings.steps}")
            leaf = delta.clone().requires_grad_(True)
            with torch.enable_grad():
                hidden = table.suffix.with_change(keys @ leaf.to(keys), table.every)
                losses = table.target_losses(hidden, table.every)
                each = torch.zeros(len(job.edits), device=losses.device).index_add(
                    0, table.owner, losses * table.weight
                )
                (gradient,) = torch.autograd.grad(each.mean(), leaf)
            if bool((each < settings.stop_loss).all()):
                break
            delta -= adam.step(every, gradient)
            if settings.bound is not None:
                delta.clamp_(-settings.bound * unit, settings.bound * unit)
        return Overlay({lm.architecture.down(layer): (Dense(delta.cpu()),)})


class FtL(FtM):
    """Fine-tuning of one layer with a bound on every entry of the change."""

    name: ClassVar[str] = "ft-l"
    title: ClassVar[str] = "FT-L"
    paper: ClassVar[str] = "2012.00363"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"gpt2-xl": {"layer": 0}, "gpt-j-6b": {"layer": 21}}
    BOUND: ClassVar[float] = 0.01  # 5e-4 at GPT-2 XL's weights: as large as one step

    def settings(self, lm: LanguageModel) -> FtSettings:
        found = super().settings(lm)
        return found if "bound" in self.overrides else replace(found, bound=self.BOUND)
