"""KnowledgeEditor (2104.08164): a network reads the edit and says how each matrix should follow its gradient.

    overlay = KnowledgeEditor().edit(lm, [edit])

A bidirectional LSTM reads "prediction || alternative || prompt". For each edited matrix, heads on its last state give a
gate eta and vectors alpha, beta, gamma, delta, and the matrix moves by (2104.08164, section 3.2)

    dW = sigmoid(eta) * (softmax(alpha) beta^T o grad W + softmax(gamma) delta^T)

which is low-rank, since grad W is. Here the gradient is measured in units of |W| and softmax has mean 1, so the network
starts as one step down the gradient whatever the model's scale. It is trained under a constraint: other prompts may
change by a margin only (:class:`editors.hypernetwork_training.Constraint`).

Several edits, which the paper leaves undefined: gradients add up, the affine terms do not. Trained networks give nearly
the same gamma and delta to every edit, several times as large as the gated gradient, so that the sum of ten single
changes was one common change ten times as large, and nothing held. A batch therefore takes the mean of its affine
terms; and an edit on top of others adds only as much of its term as is not active already. Gradients are those of the
unedited model, which are all that the network has seen: a full step along a gradient that others have bent costs other
answers. Only an edit that corrects an earlier one of the same fact reads the model with what is active.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from editors.base import Job
from editors.earlier import fact
from editors.hypernetworks import Changes, Factors, Hypernetwork, edited_modules, scales_of, shapes_of
from editors.mend import Mend, MendSettings
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Overlay

START = 0.1  # |dW| / |W| of the first step, before the gate
BAR = " || "


@dataclass(frozen=True)
class KeSettings(MendSettings):
    """As MEND's: what else there is to set is fixed when the network is trained."""


class KeNet(Hypernetwork):
    """The LSTM and its heads.

    Args:
        shapes: (in, out) of each module; scales: root mean square of its weight.
        embedding: width of the model's input embeddings, which are read and not trained.
        hidden: of the LSTM, each direction. bottleneck: of the heads' common layer.
    """

    kind: ClassVar[str] = "ke"

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        scales: Mapping[str, float],
        embedding: int,
        hidden: int = 256,
        bottleneck: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shapes = {name: (int(shape[0]), int(shape[1])) for name, shape in shapes.items()}
        self.scales, self.embedding, self.hidden = dict(scales), embedding, hidden
        self.bottleneck, self.seed = bottleneck, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
            self.read = nn.Linear(2 * hidden, bottleneck)
            self.heads = nn.ModuleList([nn.Linear(bottleneck, 2 * sum(s) + 1) for s in self.shapes.values()])
        for head in self.heads:  # softmax even, beta one, delta nought: a plain gradient step
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.steps = nn.Parameter(torch.zeros(len(self.shapes)))  # log of the step, in units of its start

    @classmethod
    def for_model(
        cls, lm: LanguageModel, *, blocks: int = 3, hidden: int = 256, bottleneck: int = 64, seed: int = 0
    ) -> KeNet:
        modules = edited_modules(lm, blocks)
        width = int(lm.model.get_input_embeddings().weight.shape[1])
        return cls(shapes_of(lm, modules), scales_of(lm, modules), width, hidden, bottleneck, seed)

    def config(self) -> dict[str, Any]:
        return {
            "shapes": self.shapes,
            "scales": self.scales,
            "embedding": self.embedding,
            "hidden": self.hidden,
            "bottleneck": self.bottleneck,
            "seed": self.seed,
        }

    @property
    def modules_edited(self) -> list[str]:
        return list(self.shapes)

    def encode(self, lm: LanguageModel, edits: Sequence[Edit]) -> Tensor:
        """(edits, bottleneck): what the LSTM makes of "prediction || alternative || prompt"."""
        texts = [BAR.join((edit.target_true or "", edit.target_new, edit.text)) for edit in edits]
        ids = [torch.tensor(lm.codec.encode(text)[: lm.context]) for text in texts]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(lm.device)
        lengths = torch.tensor([len(row) for row in ids])
        with torch.no_grad():
            seen = lm.model.get_input_embeddings()(padded).float()
            seen = seen / seen.square().mean().sqrt().clamp_min(1e-30)
        packed = nn.utils.rnn.pack_padded_sequence(seen, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return torch.tanh(self.read(torch.cat([last[0], last[1]], 1)))

    def changes(
        self,
        lm: LanguageModel,
        edits: Sequence[Edit],
        factors: Mapping[str, Factors],
        *,
        together: Tensor | None = None,
        base: Overlay | None = None,
    ) -> Changes:
        state = self.encode(lm, edits)
        everyone = torch.arange(len(edits), device=state.device)
        made: Changes = {}
        for number, (name, (width_in, width_out)) in enumerate(self.shapes.items()):
            taken = factors[name]
            said = self.heads[number](state).split([width_in, width_out, width_in, width_out, 1], 1)
            alpha, gamma = (width_in * said[index].softmax(1) for index in (0, 2))  # mean 1
            beta, delta, eta = 1 + said[1], said[3], said[4].sigmoid()
            size = self.scales[name] * (width_in * width_out) ** 0.5  # |W|
            step = START * size * self.steps[number].exp() * eta[:, 0]  # (edits,)
            length = norms(taken, len(edits)).clamp_min(1e-30)
            own = taken.owner
            u = alpha[own] * taken.x * (-step / length)[own, None]
            v = beta[own] * taken.delta
            affine = gamma * (step / width_in**0.5)[:, None]  # delta of size 1 an entry: |dW| = step * sqrt(out)
            if together is not None:
                affine = affine / together[:, None]
            affine = affine * (1.0 - already_there(base, name, affine, delta))
            made[name] = torch.cat([u, affine]), torch.cat([v, delta]), torch.cat([own, everyone])
        return made


def already_there(base: Overlay | None, name: str, u: Tensor, v: Tensor) -> float:
    """How much of the change sum u v^T is active in ``base``, by projection: 0 none of it, 1 all.

    Args:
        u: (columns, in); v: (columns, out).
    """
    active = base.delta(name) if base is not None and name in base.modules else None
    if active is None:
        return 0.0
    size = float(((u @ u.T) * (v @ v.T)).sum())
    inside = float(((u @ active.to(u)) * v).sum())
    return min(1.0, max(0.0, inside / size)) if size > 0 else 0.0


def norms(factors: Factors, edits: int) -> Tensor:
    """(edits,) Frobenius norm of each edit's gradient, from the products of its factors."""
    found = []
    for number in range(edits):
        mine = factors.owner == number
        x, delta = factors.x[mine], factors.delta[mine]
        found.append(((x @ x.T) * (delta @ delta.T)).sum().clamp_min(0).sqrt())
    return torch.stack(found)


class KnowledgeEditor(Mend):
    """Editing by a network that reads the edit. Of a batch, the gated gradients add up (see the module)."""

    name: ClassVar[str] = "ke"
    title: ClassVar[str] = "KE"
    paper: ClassVar[str] = "2104.08164"
    Settings = KeSettings
    Net: ClassVar[type[Hypernetwork]] = KeNet

    def read_under(self, job: Job, edits: Sequence[Edit]) -> Overlay | None:
        """Nothing, or all earlier edits where one of them says something else of the same fact."""
        said = {fact(edit) for edit in job.earlier}
        return job.base if any(fact(edit) in said for edit in edits) else None
