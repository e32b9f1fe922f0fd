"""T-Patcher (2301.09785): one neuron beside the last feed-forward for each token that the model gets wrong.

    overlay = TPatcher().edit(lm, [edit])

A neuron fires where the feed-forward reads what it read at the mistake, and adds a vector that corrects it:
output + relu(x K + b) V. Its key starts at x/|x|^2. Trained are the correction (edit loss), that it fires at the
mistake, and that it is silent, by a margin, on a memory of other text (2301.09785, section 3.3). At the last layer only
the final norm and the output embedding lie above, so a batch of neurons costs next to nothing, and neurons of other
edits do not interfere with training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from editors.base import Editor, EditRefused, Hparams, Job
from editors.batches import RowTable
from editors.footprint import Footprint, Need, Sizes
from editors.memory_texts import activation_memory
from editors.problems import build_problems
from knowledge.edit import Edit
from language_model.adapters import AdapterModule, register_adapter
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Overlay


@dataclass(frozen=True)
class TPatcherSettings(Hparams):
    """Settings; weights of the losses and margins are the paper's."""

    steps: int = 200
    lr: float = 0.02
    activation: float = 1.0  # weight of firing at the mistake
    memory: float = 1.0  # weight of silence elsewhere
    margin: float = 3.0  # elsewhere a neuron is this far below nought, and below its value at the mistake
    top: int = 100  # hardest memories that count
    size: int = 4000  # tokens remembered
    stop_loss: float = 0.05


@register_adapter("t-patcher")
class Patches(AdapterModule):
    """Neurons beside a feed-forward. ``keys`` (in, n), ``bias`` (n,), ``values`` (n, out)."""

    keys: Tensor
    bias: Tensor
    values: Tensor

    def __init__(self, count: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.count, self.width_in, self.width_out = count, width_in, width_out
        self.register_buffer("keys", torch.zeros(width_in, count))
        self.register_buffer("bias", torch.zeros(count))
        self.register_buffer("values", torch.zeros(count, width_out))

    def config(self) -> dict[str, Any]:
        return {"count": self.count, "width_in": self.width_in, "width_out": self.width_out}

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        return output + torch.relu(input @ self.keys + self.bias) @ self.values


class TPatcher(Editor[TPatcherSettings]):
    """Sequential correction, a neuron for each mistake."""

    name: ClassVar[str] = "t-patcher"
    title: ClassVar[str] = "T-Patcher"
    paper: ClassVar[str] = "2301.09785"
    kind: ClassVar[str] = "adapter"
    Settings = TPatcherSettings

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: TPatcherSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        sizes = Sizes(lm, edits)
        neurons = sizes.rows() * sizes.target
        fired = 4 * (6 * (settings.size + neurons) * neurons + 2 * settings.size * sizes.hidden)
        learned = 4 * 12 * neurons * sizes.hidden  # keys and values with gradients and Adam's state
        stages = (
            Need("reading ordinary text", device=sizes.suffix(settings.size // 16, 64)),
            Need("the edits' rows", device=sizes.suffix(sizes.rows(), sizes.width()) + sizes.logits(neurons)),
        )
        return Footprint((Need("neurons and what they stay silent on", device=fired + learned),), stages)

    def compute(self, job: Job, settings: TPatcherSettings) -> Overlay:
        lm, layer = job.lm, job.lm.num_layers - 1
        table = RowTable(lm, build_problems(lm, job.edits, ("",), essence=()), layer)
        if not table.suffix.additive:
            raise EditRefused(
                f"{lm.name} ({lm.architecture.model_type}) normalises what the feed-forward adds, "
                f"so a neuron beside it "
                "cannot be trained on its own. Use GRACE or R-ROME."
            )
        reads = table.reads
        read = table.suffix.read[reads.row, reads.at].float()
        hidden = table.suffix.hidden[reads.row, reads.at].float()
        with torch.no_grad():
            said = table.suffix.head(hidden.to(table.suffix.hidden)).argmax(-1)
        wrong = (said != reads.wanted).nonzero()[:, 0]
        if not len(wrong):  # every token is the model's choice already: nothing to correct
            return Overlay.empty()
        read, hidden, wanted = read[wrong], hidden[wrong], reads.wanted[wrong]
        memory = torch.cat([activation_memory(lm, self.moments, layer, settings.size, settings.seed).to(read), read])
        return self._train(job, settings, table, read, hidden, wanted, memory)

    def _train(
        self,
        job: Job,
        settings: TPatcherSettings,
        table: RowTable,
        read: Tensor,
        hidden: Tensor,
        wanted: Tensor,
        memory: Tensor,
    ) -> Overlay:
        """``read`` (n, in), ``hidden`` (n, hidden) and ``wanted`` (n,) at the mistakes; ``memory`` (m, in)."""
        lm, count = job.lm, len(read)
        square = read.square().sum(1, keepdim=True)
        keys = read / square  # activation 1 at the mistake
        bias = torch.zeros(count, device=read.device, requires_grad=True)
        unit = hidden.norm(dim=1, keepdim=True) / hidden.shape[1] ** 0.5
        values = torch.zeros_like(hidden, requires_grad=True)  # in units of the hidden state
        scale = 1.0 / square.sqrt()  # of a step in the key: the same step in activation whatever |x| is
        keyed = torch.zeros_like(keys, requires_grad=True)
        optimiser = torch.optim.Adam([keyed, bias, values], lr=settings.lr)
        same = torch.cdist(memory, read) < 1e-3 * read.norm(dim=1)
        top = min(settings.top, len(memory))
        for step in range(settings.steps):
            job.progress(step / settings.steps, f"neurons: step {step + 1} of {settings.steps}")
            with torch.enable_grad():
                now = keys + keyed * scale
                fired = (read * now).sum(1) + bias
                out = hidden + torch.relu(fired)[:, None] * values * unit
                logits = table.suffix.head(out.to(table.suffix.hidden))
                edit = nn.functional.cross_entropy(logits, wanted, reduction="none")
                others = (memory @ now.T + bias).masked_fill(same, -torch.inf)  # (memory, n)
                hardest = others.topk(top, dim=0).values
                silent = torch.exp(hardest + settings.margin).mean(0)
                apart = torch.exp(hardest - fired + settings.margin).mean(0)
                on = torch.exp(-fired)
                loss = (edit + settings.activation * on + settings.memory * (silent + apart)).sum()
                gradients = torch.autograd.grad(loss, [keyed, bias, values])
            if bool((edit < settings.stop_loss).all()) and bool((others.max(0).values <= 0).all()):
                break
            for tensor, gradient in zip((keyed, bias, values), gradients, strict=True):
                tensor.grad = gradient
            optimiser.step()
        patches = Patches(count, read.shape[1], hidden.shape[1])
        with torch.no_grad():
            patches.keys.copy_((keys + keyed * scale).T)
            patches.bias.copy_(bias)
            patches.values.copy_(values * unit)
        return Overlay({lm.architecture.mlp(lm.num_layers - 1): (Adapter(patches),)})
