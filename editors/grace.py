"""GRACE (2211.11031): a codebook beside one layer. Near a stored key, the stored value replaces the layer's output.

    overlay = Grace().edit(lm, [edit])

The key is what the layer's down-projection is given at the prompt's last token. Where it lies within the radius of the
nearest stored key, the value stands in for the output there and at the tokens of the answer, as many as the edit's
answer has; after them, and elsewhere, the layer answers as it would. Values are found by Adam; the base weights never
change and unrelated questions are not touched at all.

An overlay holds the entries of its own edits only. Radii are settled when a pass begins, from all entries that are
active then, in the order of their making: so an entry that is undone gives back the room that it took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from editors.adam import RowAdam
from editors.base import Editor, EditRefused, Hparams, Job
from editors.batches import RowTable
from editors.footprint import Footprint, Need, Sizes
from editors.presets import SHALLOW
from editors.problems import Problem, build_problems
from knowledge.edit import Edit
from knowledge.text import normalise_answer
from language_model.adapters import AdapterModule, register_adapter
from language_model.context import current_context
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Overlay

_ENDLESS = 1 << 30  # tokens


@dataclass(frozen=True)
class GraceSettings(Hparams):
    """Settings; the defaults are the paper's, radii made relative."""

    # None: three quarters of the depth, where a prompt's last token says what is asked; half of it in shallow models,
    # where the layers above must still tell the answer's tokens apart, which all get one value
    layer: int | None = None
    radius: float = 0.5  # epsilon_init, as a share of the key's own length (1.0 at the paper's models)
    steps: int = 100
    lr: float = 0.3  # of Adam, in units of |v| / sqrt(out)
    stop_loss: float = 0.01


@dataclass(frozen=True, eq=False)
class Codebook:
    """Settled entries.

    Attributes:
        keys, values: (n, in), (n, out).
        radii: (n,).
        labels: (n,) numbers of answers.
        lengths: (n,) tokens of the answers; so long does a value stand in.
    """

    keys: Tensor
    values: Tensor
    radii: Tensor
    labels: Tensor
    lengths: Tensor

    def extended(self, keys: Tensor, values: Tensor, radii: Tensor, labels: Tensor, lengths: Tensor) -> Codebook:
        """Adds entries one by one by GRACE's rule (2211.11031, algorithm 1), but for equal answers.

        Far from every key: as it is. Within reach of the nearest (their radii overlap) with another answer: both are
        cut to half their distance. With the same answer both stand side by side, and the nearer one speaks. The paper
        widens the old entry instead and drops the new value; but a value is found for one prompt, and the one of the
        completion rarely gives the answer in the chat, whose key is near it: of 100 edits 32 held in both.
        """
        own_keys, own_values, own_radii, own_labels = self.keys, self.values, self.radii.clone(), self.labels
        own_lengths = self.lengths
        for key, value, radius, label, length in zip(keys, values, radii.clone(), labels, lengths, strict=True):
            if len(own_keys):
                distance = torch.linalg.vector_norm(own_keys - key, dim=1)
                nearest = int(distance.argmin())
                gap = distance[nearest]
                if gap <= own_radii[nearest] + radius and own_labels[nearest] != label:
                    half = gap / 2 * (1 - 1e-4)
                    own_radii[nearest] = torch.minimum(own_radii[nearest], half)
                    radius = torch.minimum(radius, half)
            own_keys, own_values = torch.cat([own_keys, key[None]]), torch.cat([own_values, value[None]])
            own_radii, own_labels = torch.cat([own_radii, radius[None]]), torch.cat([own_labels, label[None]])
            own_lengths = torch.cat([own_lengths, length[None]])
        return Codebook(own_keys, own_values, own_radii, own_labels, own_lengths)

    def lookup(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest entry of each query (n, in), and whether it lies within that entry's radius."""
        distance = torch.cdist(queries.float(), self.keys.float(), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.argmin(1)
        here = distance.gather(1, nearest[:, None])[:, 0]
        return nearest, here <= self.radii[nearest].float()


@register_adapter("grace")
class GraceEntries(AdapterModule):
    """The entries of one GRACE edit.

    Several of them stand in a row on one module. Each reads what those before it have settled, adds its own entries,
    and decides anew from the layer's untouched output; so the last one gives the answer of the whole codebook. What is
    passed on travels with the input tensor of the pass.
    """

    keys: Tensor
    values: Tensor
    radii: Tensor
    labels: Tensor
    lengths: Tensor

    def __init__(self, count: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.count, self.width_in, self.width_out = count, width_in, width_out
        self.register_buffer("keys", torch.zeros(count, width_in))
        self.register_buffer("values", torch.zeros(count, width_out))
        self.register_buffer("radii", torch.zeros(count))
        self.register_buffer("labels", torch.zeros(count, dtype=torch.long))
        self.register_buffer("lengths", torch.full((count,), _ENDLESS, dtype=torch.long))
        self._settled: tuple[object, Codebook] | None = None

    def config(self) -> dict[str, Any]:
        return {"count": self.count, "width_in": self.width_in, "width_out": self.width_out}

    @classmethod
    def restore(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Also from files of the time before lengths were kept: those values stand in to the end."""
        endless = torch.full((int(config["count"]),), _ENDLESS, dtype=torch.long)
        return super().restore(config, {"lengths": endless, **tensors})

    def settle(self, before: Codebook | None) -> Codebook:
        """The codebook of those before and this one; computed once for each predecessor."""
        if self._settled is None or self._settled[0] is not before:
            own = (self.keys, self.values, self.radii, self.labels, self.lengths)
            merged = (before or Codebook(*(part[:0] for part in own))).extended(*own)
            self._settled = before, merged
        return self._settled[1]

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        untouched, before = getattr(input, "_grace", (output, None))
        book = self.settle(before)
        input._grace = (untouched, book)  # type: ignore[attr-defined]
        context = current_context()
        rows = torch.arange(len(context), device=input.device)
        if context.is_decoding:
            nearest, hit = context.state["nearest"], context.state["hit"]
            here = (hit & (context.step < book.lengths[nearest]))[:, None].expand(-1, input.shape[1])
        else:
            nearest, hit = book.lookup(input[rows, context.last_prompt])
            context.state["nearest"], context.state["hit"] = nearest, hit
            passed = torch.arange(input.shape[1], device=input.device)[None] - context.last_prompt[:, None]
            here = hit[:, None] & (passed >= 0) & (passed < book.lengths[nearest][:, None])
        return torch.where(here[..., None], book.values[nearest][:, None].to(output.dtype), untouched)


class Grace(Editor[GraceSettings]):
    """Lifelong editing by a codebook of keys, values and radii."""

    name: ClassVar[str] = "grace"
    title: ClassVar[str] = "GRACE"
    paper: ClassVar[str] = "2211.11031"
    kind: ClassVar[str] = "adapter"
    Settings = GraceSettings
    LAYER_RULE: ClassVar[str] = "three quarters of the depth, half of it in shallow models"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt2-xl": {"layer": 35},
        "gpt-j-6b": {"layer": 25},
        "llama-7b": {"layer": 27},
        "llama-13b": {"layer": 32},
        "mistral-7b": {"layer": 27},
        "qwen2.5-7b": {"layer": 18},
    }

    def settings(self, lm: LanguageModel) -> GraceSettings:
        found = super().settings(lm)
        if found.layer is not None:
            return found
        layers = lm.num_layers
        return replace(found, layer=layers // 2 if layers <= SHALLOW else round(0.75 * (layers - 1)))

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: GraceSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        assert settings.layer is not None
        sizes = Sizes(lm, edits)
        found = sizes.jointly(sizes.rows(), sizes.width(), settings.layer)
        return Footprint((), (Need("values of all edits", device=found),))

    def compute(self, job: Job, settings: GraceSettings) -> Overlay:
        assert settings.layer is not None
        problems = build_problems(job.lm, job.edits, ("",), essence=())
        _must_not_repeat(problems)
        table = RowTable(job.lm, problems, settings.layer)
        rows, suffix = table.every, table.suffix
        keys = suffix.keys[rows, table.last_prompt].float()
        start = suffix.values[rows, table.last_prompt].float()
        here = table.from_answer()
        unit = start.norm(dim=1, keepdim=True).clamp_min(1e-30) / start.shape[1] ** 0.5
        moved = torch.zeros_like(start)
        adam, active = RowAdam(moved, settings.lr), rows
        for step in range(settings.steps):
            job.progress(step / settings.steps, f"values: step {step + 1} of {settings.steps}")
            leaf = moved[active].requires_grad_(True)
            with torch.enable_grad():
                value = start[active] + leaf * unit[active]
                change = (value[:, None] - suffix.values[active]) * here[active][..., None]
                losses = table.target_losses(suffix.with_change(change, active), active)
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
            going = losses.detach() >= settings.stop_loss
            active, gradient = active[going], gradient[going]
            if not len(active):
                break
            moved[active] = moved[active] - adam.step(active, gradient)
        entries = GraceEntries(len(rows), keys.shape[1], start.shape[1])
        entries.keys.copy_(keys)
        entries.values.copy_(start + moved * unit)
        entries.radii.copy_(settings.radius * keys.norm(dim=1))
        entries.lengths.copy_(torch.tensor([len(row.target) for row in table.rows]))
        entries.labels.copy_(torch.tensor([_label(job.edits[int(owner)].target_new) for owner in table.owner]))
        return Overlay({job.lm.architecture.down(settings.layer): (Adapter(entries),)})


def _label(answer: str) -> int:
    """A number of an answer: the same for the same answer, in this session and the next."""
    import hashlib

    return int.from_bytes(hashlib.sha256(normalise_answer(answer).encode()).digest()[:7], "big")


def _must_not_repeat(problems: Sequence[Problem]) -> None:
    prompts: dict[tuple[int, ...], str] = {}
    for problem in problems:
        answer = problem.edit.target_new
        for row in problem.rows:
            other = prompts.setdefault(row.ids[: row.start], answer)
            if other != answer:
                raise EditRefused(
                    f"Two edits of one batch ask the same question and want different answers: {answer!r} and "
                    f"{other!r}. Keep one of them."
                )
