"""Knowledge Neurons (2104.08696): find the feed-forward neurons that hold a fact, and rewrite what they say.

    overlay = KnowledgeNeurons().edit(lm, [edit])

A neuron's attribution is its value times the integral of d P(old answer) / d neuron, as all neurons of its layer are
scaled from 0 to their value (2104.08696, eq. 2), at the token where the answer is decided. Neurons above a share of the
largest, in most of the fact's prompts, are the fact's. Each then says less of the old answer and more of the new one:
its row of the down-projection moves by -lambda1 E(old) + lambda2 E(new), E being the answers' output embeddings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from editors.base import Editor, Hparams, Job
from editors.footprint import Footprint, Need, Sizes
from editors.passes import Suffix, down_projection
from editors.problems import Problem, build_problems
from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay

TOKENS = 2048  # in one pass of the integral, padding included: more only fills memory


@dataclass(frozen=True)
class KnSettings(Hparams):
    """Settings; the defaults are the paper's, the embeddings' size made relative."""

    steps: int = 20  # of the integral
    threshold: float = 0.2  # share of the largest attribution in a prompt
    shared: float = 0.7  # share of the prompts that must agree
    prefixes: int = 6  # the paper has about 8 prompts for each fact
    most: int = 20  # neurons; the paper finds 4 on average, and more would blur other facts
    lambda1: float = 1.0
    lambda2: float = 8.0
    action: Literal["update", "suppress", "enhance"] = "update"


class KnowledgeNeurons(Editor[KnSettings]):
    """Edits by rewriting the values of attributed neurons. Each edit of a batch is made on its own, all add up."""

    name: ClassVar[str] = "kn"
    title: ClassVar[str] = "KN"
    paper: ClassVar[str] = "2104.08696"
    Settings = KnSettings

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: KnSettings, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        sizes = Sizes(lm, edits)
        width = sizes.width(10)
        rows = settings.steps * max(1, TOKENS // (settings.steps * width))
        integral = sizes.learning(rows, width, lm.num_layers) + sizes.logits(rows) + sizes.suffix(rows, width)
        embeddings = 0 if lm.dtype == torch.float32 else 4 * lm.vocab_size * lm.hidden_size
        return Footprint((), (Need("the integral of gradients", device=integral + embeddings),))

    def compute(self, job: Job, settings: KnSettings) -> Overlay:
        lm = job.lm
        prefixes = self.moments.prefixes.get(lm, count=settings.prefixes, seed=settings.seed)
        problems = build_problems(lm, job.edits, prefixes, essence=())
        total = Overlay.empty()
        for number, (edit, problem) in enumerate(zip(job.edits, problems, strict=True)):
            job.progress(number / len(problems), f"attribution: edit {number + 1} of {len(problems)}")
            old = old_answer_ids(lm, edit, problem)
            neurons = knowledge_neurons(lm, problem, old, settings)
            total = total + self._rewrite(lm, neurons, old[0], problem.rows[0].target[0], settings)
        return total

    def _rewrite(
        self, lm: LanguageModel, neurons: dict[int, list[int]], old: int, new: int, settings: KnSettings
    ) -> Overlay:
        embedding = lm.model.get_output_embeddings().weight.detach().float()
        made = Overlay.empty()
        for layer, chosen in neurons.items():
            weight = weight_in_out(down_projection(lm, layer)).detach().float()
            picked = torch.zeros(weight.shape[0], len(chosen))
            picked[chosen, range(len(chosen))] = 1.0
            rows = weight[chosen].cpu()
            if settings.action == "update":
                length = rows.norm(dim=1).mean()
                change = settings.lambda2 * _unit(embedding[new]) - settings.lambda1 * _unit(embedding[old])
                v = (length * change.cpu()).expand(len(chosen), -1).contiguous()
            else:
                v = -rows if settings.action == "suppress" else rows.clone()
            made = made + Overlay({lm.architecture.down(layer): (LowRank(picked, v),)})
        return made


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-30)


def old_answer_ids(lm: LanguageModel, edit: Edit, problem: Problem) -> tuple[int, ...]:
    """The tokens of what the model says now, by form: the first token of its answer to each bare prompt.

    Returns:
        one token for each form, in the order of ``problem.bare``.
    """
    found = []
    for index in problem.bare:
        row = problem.rows[index]
        trace = lm.trace([list(row.ids[: row.start])])
        found.append(int(trace.logits[0, row.start - 1].argmax()))
    return tuple(found)


def attributions(lm: LanguageModel, ids: tuple[int, ...], layer: int, token: int, steps: int) -> Tensor:
    """(in,) integrated gradients of P(token | ids) with respect to one layer's neurons at the last position.

    The sum over the neurons is P at their values less P at nought, as the steps grow (completeness).
    """
    return attributions_of_rows(lm, [ids], layer, [token], steps)[0]


def attributions_of_rows(
    lm: LanguageModel, rows: Sequence[Sequence[int]], layer: int, tokens: Sequence[int], steps: int
) -> Tensor:
    """(rows, in) :func:`attributions` of several prompts, each for its own token; all their steps in one pass."""
    suffix = Suffix(lm, [list(row) for row in rows], layer)
    weight = weight_in_out(down_projection(lm, layer)).detach()
    device = suffix.keys.device
    last = torch.tensor([len(row) - 1 for row in rows], device=device)
    value = suffix.keys[torch.arange(len(rows), device=device), last].float()
    # Midpoints of the steps: the error of the sum falls with the square of their number.
    shares = (torch.arange(steps, device=device) + 0.5) / steps
    which = torch.arange(len(rows), device=device).repeat_interleave(steps)
    neurons = (shares[None, :, None] * value[:, None]).flatten(0, 1).requires_grad_(True)
    every = torch.arange(len(which), device=device)
    with torch.enable_grad():
        change = ((neurons - value[which]) @ weight.float()).to(suffix.values)
        hidden = suffix.above(change, last[which], which)
        chance = suffix.head(hidden[every, last[which]]).softmax(-1)
        wanted = torch.tensor(list(tokens), device=device)[which]
        (gradient,) = torch.autograd.grad(chance[every, wanted].sum(), neurons)
    return value * gradient.unflatten(0, (len(rows), steps)).mean(1)


def knowledge_neurons(
    lm: LanguageModel, problem: Problem, old: tuple[int, ...], settings: KnSettings
) -> dict[int, list[int]]:
    """Neurons of one fact by layer: above the threshold in enough of its prompts, the strongest where there are
    many.
    """
    forms = {problem.rows[index].form: token for index, token in zip(problem.bare, old, strict=True)}
    votes: Counter[tuple[int, int]] = Counter()
    strength: Counter[tuple[int, int]] = Counter()
    prompts = [row.ids[: row.start] for row in problem.rows]
    wanted = [forms[row.form] for row in problem.rows]
    at_once = max(1, TOKENS // (settings.steps * max(map(len, prompts))))
    parts = [slice(start, start + at_once) for start in range(0, len(prompts), at_once)]
    found = [
        torch.cat([attributions_of_rows(lm, prompts[part], layer, wanted[part], settings.steps) for part in parts])
        for layer in range(lm.num_layers)
    ]
    for scores in torch.stack(found, 1):  # (layers, in) of a prompt
        for layer, neuron in (scores > settings.threshold * scores.max()).nonzero().tolist():
            votes[layer, neuron] += 1
            strength[layer, neuron] += float(scores[layer, neuron])  # type: ignore[assignment]
    agreed = [place for place, count in votes.items() if count >= settings.shared * len(problem.rows)]
    # Prompts that agree on nothing: the strongest neuron is still the best guess, as in the released code's fallback.
    agreed = agreed or [place for place, _ in strength.most_common(1)]
    kept = sorted(sorted(agreed, key=lambda place: -strength[place])[: settings.most])
    return {
        layer: [neuron for where, neuron in kept if where == layer] for layer in sorted({where for where, _ in kept})
    }
