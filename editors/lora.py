"""LoRA (2106.09685) through the ``peft`` library: low-rank changes of the attention's projections, trained on the edit.

    overlay = Lora().edit(lm, [edit])

``peft`` puts its modules into the model that it trains. It is therefore given a shadow: the same weights in memory
under a second tree of modules, so that the model itself is never rebuilt, and other threads notice nothing.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from editors.base import Editor, EditRefused, Hparams, Job
from editors.footprint import Footprint, Need, Sizes
from editors.problems import build_problems
from editors.reads import target_losses
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay


@dataclass(frozen=True)
class LoraSettings(Hparams):
    """Settings; the defaults are those that editing benchmarks use (2308.07269)."""

    rank: int = 8
    alpha: int = 32
    targets: tuple[str, ...] = ()  # names of module kinds; none: peft's own choice for the family (q and v, or c_attn)
    steps: int = 70
    # The benchmarks' 5e-3 at our bundled model's size. A step then means the same in a model of any scale:
    lr: float = 0.09  # of A, in units of 1 / sqrt(in), its size at the start
    lr_b: float = 0.0038  # of B, in units of the weight's root mean square times sqrt(in)
    stop_loss: float = 0.05
    prefixes: int = 0


class Lora(Editor[LoraSettings]):
    """Low-rank adaptation; a batch is trained jointly."""

    name: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    paper: ClassVar[str] = "2106.09685"
    Settings = LoraSettings

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: LoraSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        sizes = Sizes(lm, edits)
        rows, width = sizes.rows(settings.prefixes), sizes.width(10 if settings.prefixes else 0)
        step = sizes.learning(rows, width, lm.num_layers) + sizes.logits(rows * width)
        return Footprint((), (Need("gradients of all edits", device=step),))

    def compute(self, job: Job, settings: LoraSettings) -> Overlay:
        prefixes = self.moments.prefixes.get(job.lm, count=settings.prefixes, seed=settings.seed)
        problems = build_problems(job.lm, job.edits, prefixes, essence=())
        rows = [row for problem in problems for row in problem.rows]
        weights = [weight for problem in problems for weight in problem.weights]
        lm = shadow(job.lm)
        layers = _inject(lm, settings)
        parameters = [weight for pair in layers.values() for weight in pair]
        optimiser = torch.optim.Adam(_groups(job.lm, layers, settings))
        batch = lm.batch([row.ids[: row.start] for row in rows], [row.target for row in rows])
        weight = torch.tensor(weights, device=lm.device)
        for step in range(settings.steps):
            job.progress(step / settings.steps, f"step {step + 1} of {settings.steps}")
            with torch.enable_grad():
                losses = target_losses(lm.forward(batch, overlays=[job.base or None] * len(rows)), rows)
                loss = (losses * weight).sum() / len(problems)
                gradients = torch.autograd.grad(loss, parameters)
            if float(losses.detach().max()) < settings.stop_loss:
                break
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
        scale = settings.alpha / settings.rank
        return Overlay(
            {
                name: (
                    LowRank(a.detach().float().T.contiguous().cpu(), (b.detach().float().T * scale).contiguous().cpu()),
                )
                for name, (a, b) in layers.items()
            }
        )


def _groups(
    lm: LanguageModel, layers: dict[str, tuple[Tensor, Tensor]], settings: LoraSettings
) -> list[dict[str, Any]]:
    """Each factor with its learning rate."""
    found: list[dict[str, Any]] = []
    for name, (a, b) in layers.items():
        root = a.shape[1] ** 0.5
        weight = lm.module(name).get_parameter("weight")
        usual = float(weight.float().square().mean().sqrt()) if weight.is_floating_point() else 1 / root
        found += [{"params": [a], "lr": settings.lr / root}, {"params": [b], "lr": settings.lr_b * usual * root}]
    return found


def shadow(lm: LanguageModel) -> LanguageModel:
    """The same weights under a second tree of modules; costs no memory for weights, and has hooks of its own."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*lm.model.parameters(), *lm.model.buffers())}
    return LanguageModel(copy.deepcopy(lm.model, shared), lm.tokenizer, lm.name)  # our hooks ignore foreign modules


def _inject(lm: LanguageModel, settings: LoraSettings) -> dict[str, tuple[Tensor, Tensor]]:
    """Adds trainable factors to the shadow; by module name: A (r, in) and B (out, r), B nought at first."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=list(settings.targets) or _default_targets(lm),
        fan_in_fan_out=lm.architecture.model_type == "gpt2",
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # peft corrects fan_in_fan_out and says so
        torch.manual_seed(settings.seed)
        inject_adapter_in_model(config, lm.model)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in lm.model.named_modules():
        a, b = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if isinstance(a, nn.ModuleDict) and isinstance(b, nn.ModuleDict) and len(a):
            found[name] = a["default"].weight, b["default"].weight  # type: ignore[assignment]
    lm.model.eval()
    return found


def _default_targets(lm: LanguageModel) -> list[str]:
    """What peft adapts in this family; where it has no opinion, query and value under their usual names."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    kind = lm.architecture.model_type
    if kind in DEFAULTS:
        return list(DEFAULTS[kind])
    present = {name.rpartition(".")[2] for name, _ in lm.model.named_modules()}
    for names in (("q_proj", "v_proj"), ("qkv_proj",), ("query_key_value",)):
        if present.issuperset(names):
            return list(names)
    raise EditRefused(
        f"LoRA has no default targets for the family {kind!r}. Name them, for example targets=('q_proj', 'v_proj')."
    )
