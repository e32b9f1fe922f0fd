"""R-ROME and MEMIT the plain way: one value after another, the whole model run in every step, dense solves.

What the published code does, in as few lines as possible, on the same prompts, prefixes and settings as ours, so that
both come to the same change and only the time differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from editors.keys import mean_by_group
from editors.memit import MemitSettings
from editors.problems import Problem, build_problems
from editors.rome import RomeSettings
from editors.statistics import MomentStore
from editors.values import ValueSettings
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank, Overlay


def plain_value(
    lm: LanguageModel, problem: Problem, layer: int, settings: ValueSettings, doses: Tensor | None = None
) -> Tensor:
    """(out,) d of one edit, float64, by steps through the whole model. ``doses`` (rows,): each row's share of d."""
    rows = [*problem.rows, *problem.essence]
    share = torch.ones(len(rows), 1) if doses is None else doses[:, None].float()
    subject = torch.tensor([row.subject for row in rows])
    every = torch.arange(len(rows))
    name, block = lm.architecture.down(layer), lm.architecture.block(layer)
    batch = lm.batch([row.ids[: row.start] for row in rows], [row.target for row in rows])
    still = lm.trace(batch, outputs=[name, block])
    bare = problem.bare[0]
    value = still.outputs[name][bare, problem.rows[bare].subject].float()
    hidden = still.outputs[block][bare, problem.rows[bare].subject].float().norm()
    reference = hidden if settings.reference == "hidden" else value.norm().maximum(settings.floor * hidden)
    unit = reference / value.shape[0] ** 0.5
    known = len(problem.rows)
    ends = torch.tensor([len(row.ids) - 1 for row in problem.essence], dtype=torch.long)
    before = still.logits[known + torch.arange(len(ends)), ends].float().log_softmax(-1)
    x = torch.zeros_like(value, requires_grad=True)
    adam = torch.optim.Adam([x], lr=settings.lr)
    for step in range(1, settings.steps + 1):

        def changed(output: Tensor) -> Tensor:
            output = output.clone()
            output[every, subject] = output[every, subject] + share * x * unit
            return output

        with torch.enable_grad():
            logits = lm.trace(batch, change_outputs={name: changed}, grad=True).logits
            loss = torch.zeros(())
            for number, (row, weight) in enumerate(zip(problem.rows, problem.weights, strict=True)):
                span = logits[number, row.start - 1 : len(row.ids) - 1].float()
                loss = loss + weight * torch.nn.functional.cross_entropy(span, torch.tensor(row.target))
            if len(ends):
                now = logits[known + torch.arange(len(ends)), ends].float().log_softmax(-1)
                loss = loss + settings.essence * (before.exp() * (before - now)).sum(-1).mean()
            size = ((x * unit).square().sum() + 1e-12).sqrt() / reference
            (gradient,) = torch.autograd.grad(loss + settings.decay * size, [x])
        if float(loss.detach()) < settings.stop_loss or step == settings.steps:
            break
        if settings.rule == "adam":
            x.grad = gradient
            adam.step()
        with torch.no_grad():
            if settings.rule == "steepest":
                falling = 1 - (step - 1) / settings.steps
                x.sub_(falling * settings.stride * hidden / unit * gradient / gradient.norm())
            length = (x * unit).norm()
            x.mul_((settings.clamp * reference / length.clamp_min(1e-30)).clamp_max(1.0))
    return (x.detach() * unit).double()


def plain_keys(lm: LanguageModel, problem: Problem, layer: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean key (in,), mean value (out,), mean hidden state of the bare rows at ``last`` (hidden,): row after row."""
    down, block = lm.architecture.down(layer), lm.architecture.block(last)
    keys, values, hidden = [], [], []
    for row in problem.rows:
        trace = lm.trace([list(row.ids)], inputs=[down], outputs=[down, block])
        keys.append(trace.inputs[down][0, row.subject].double())
        values.append(trace.outputs[down][0, row.subject].double())
        hidden.append(trace.outputs[block][0, row.subject].double())
    weights, same = torch.tensor(problem.weights), [0] * len(problem.rows)
    bare = torch.stack([hidden[index] for index in problem.bare]).mean(0)
    both = (mean_by_group(torch.stack(part), same, weights)[0] for part in (keys, values))
    key, value = both
    return key, value, bare


def plain_r_rome(lm: LanguageModel, edits: Sequence[Edit], settings: RomeSettings, moments: MomentStore) -> Overlay:
    assert settings.layer is not None
    layer = settings.layer
    prefixes = moments.prefixes.get(lm, count=settings.prefixes, lengths=settings.prefix_lengths, seed=settings.seed)
    matrix = moments.get(lm, [layer])[layer].matrix
    total = Overlay.empty()
    down = lm.architecture.down(layer)
    for problem in build_problems(lm, edits, prefixes, essence=settings.essence):
        # As in one call of ours, the target is found in the model as it was; only the gap sees the earlier changes.
        key, value, _ = plain_keys(lm, problem, layer, layer)
        direction = torch.linalg.solve(matrix, key)
        done = total.delta(down)
        there = torch.zeros_like(value) if done is None else key @ done.double()
        if settings.dosed:
            rows = [*problem.rows, *problem.essence]
            keys = [lm.trace([list(row.ids)], inputs=[down]).inputs[down][0, row.subject].double() for row in rows]
            doses = torch.stack(keys) @ direction / (key @ direction)
            gap = plain_value(lm, problem, layer, settings.values, doses)
        else:
            bare = problem.rows[problem.bare[0]]
            start = lm.trace([list(bare.ids)], outputs=[down]).outputs[down][0, bare.subject].double()
            gap = start + plain_value(lm, problem, layer, settings.values) - value
        u, v = direction / (key @ direction), gap - there
        total = total + Overlay({down: (LowRank(u[:, None].float(), v[None].float()),)})
    return total


def plain_memit(lm: LanguageModel, edits: Sequence[Edit], settings: MemitSettings, moments: MomentStore) -> Overlay:
    assert settings.layers is not None
    layers = sorted(settings.layers)
    prefixes = moments.prefixes.get(lm, count=settings.prefixes, lengths=settings.prefix_lengths, seed=settings.seed)
    problems = build_problems(lm, edits, prefixes, essence=settings.essence)
    deltas = torch.stack([plain_value(lm, problem, layers[-1], settings.values) for problem in problems])
    start = torch.stack([plain_keys(lm, problem, layers[-1], layers[-1])[2] for problem in problems])
    total = Overlay.empty()
    for number, layer in enumerate(layers):
        with lm.overlaid(total):
            taken = [plain_keys(lm, problem, layer, layers[-1]) for problem in problems]
        keys = torch.stack([item[0] for item in taken]).T
        rest = deltas if len(layers) == 1 else deltas - (torch.stack([item[2] for item in taken]) - start)
        matrix = moments.get(lm, [layer])[layer].matrix
        left = settings.weight * keys.shape[0] * matrix + keys @ keys.T
        change = torch.linalg.solve(left, keys @ (rest / (len(layers) - number)))
        total = total + Overlay({lm.architecture.down(layer): (Dense(change.float()),)})
    return total
