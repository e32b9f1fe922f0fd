"""Target values: batched without touching each other, relative, and stopping by themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editors.adam import RowAdam
from editors.base import EditRefused
from editors.problems import build_problems
from editors.values import ValueSettings, optimise_values
from language_model.model import LanguageModel
from tests.editors.helpers import capital_edit
from tests.language_model.helpers import low_rank

EDITS = [capital_edit("France", "Oslo"), capital_edit("Peru", "Kathmandu"), capital_edit("Egypt", "Rome")]
SETTINGS = ValueSettings(steps=12, stop_loss=1.0)


def test_a_batch_is_what_single_edits_are(tiny_chat_lm: LanguageModel) -> None:
    problems = build_problems(tiny_chat_lm, EDITS, ("", "Yesterday I saw"))
    together = optimise_values(tiny_chat_lm, problems, 0, SETTINGS)
    chunked = optimise_values(tiny_chat_lm, problems, 0, replace(SETTINGS, tokens=1))
    for number, problem in enumerate(problems):
        alone = optimise_values(tiny_chat_lm, [problem], 0, SETTINGS)
        for other in (together, chunked):
            assert torch.allclose(other.start[number], alone.start[0], atol=1e-5)
            assert (other.delta[number] - alone.delta[0]).norm() < 0.01 * alone.delta[0].norm()
            assert int(other.steps[number]) == int(alone.steps[0])


def test_the_loss_is_that_of_the_whole_model(tiny_chat_lm: LanguageModel) -> None:
    (problem,) = build_problems(tiny_chat_lm, EDITS[:1], ("", "Yesterday I saw"), essence=())
    values = optimise_values(tiny_chat_lm, [problem], 0, replace(SETTINGS, steps=4, stop_loss=0.0))
    name = tiny_chat_lm.architecture.down(0)
    # the loss that is reported was taken before the last step was made: four evaluations, three steps
    assert int(values.steps[0]) == 3
    total = 0.0
    for row, weight in zip(problem.rows, problem.weights, strict=True):

        def add(value: torch.Tensor, at: int = row.subject) -> torch.Tensor:
            changed = value.clone()
            changed[:, at] += values.delta[0].float()
            return changed

        trace = tiny_chat_lm.trace([list(row.ids[: row.start])], targets=[list(row.target)], change_outputs={name: add})
        total -= weight * float(trace.target_logprobs()[0])
    assert total == pytest.approx(float(values.loss[0]), rel=1e-4)


def test_an_edit_may_go_on_until_its_own_prompts_say_it(trained: LanguageModel) -> None:
    """Whatever the loss is: rows behind a prefix weigh on it too, and do not say how the bare ones fare."""
    (problem,) = build_problems(trained, EDITS[:1], ("", "Yesterday I saw"), essence=())
    content = ValueSettings(steps=60, clamp=8.0, stride=0.05, stop_loss=1e9)
    assert int(optimise_values(trained, [problem], 0, content).steps[0]) == 0
    values = optimise_values(trained, [problem], 0, replace(content, said=True))
    assert 0 < int(values.steps[0]) < 59

    def said(delta: torch.Tensor) -> bool:
        right = True
        for index in problem.bare:
            row = problem.rows[index]

            def add(value: torch.Tensor, at: int = row.subject) -> torch.Tensor:
                changed = value.clone()
                changed[:, at] += delta.float()
                return changed

            trace = trained.trace([list(row.ids)], change_outputs={trained.architecture.down(0): add})
            right &= trace.logits[0, list(row.reads)].argmax(-1).tolist() == list(row.target)
        return right

    assert said(values.delta[0])
    assert not said(values.delta[0] * 0.5)


def test_the_clamp_holds_and_is_relative(tiny_chat_lm: LanguageModel) -> None:
    problems = build_problems(tiny_chat_lm, EDITS, ("",))
    values = optimise_values(tiny_chat_lm, problems, 0, replace(SETTINGS, clamp=0.5, floor=0.0, stop_loss=0.0))
    ratio = values.delta.norm(dim=1) / values.start.norm(dim=1)
    assert bool((ratio <= 0.5 + 1e-5).all())
    assert float(ratio.max()) > 0.49


def test_a_tiny_value_does_not_stop_the_edit(tiny_chat_lm: LanguageModel) -> None:
    """Where the layer's own output is next to nothing, its length is no measure; the hidden state's is."""
    name = tiny_chat_lm.architecture.down(0)
    module = tiny_chat_lm.module(name)
    from language_model.architectures import weight_in_out
    from language_model.overlay import Dense, Overlay

    muted = Overlay({name: (Dense(-0.9999 * weight_in_out(module).detach()),)})
    problems = build_problems(tiny_chat_lm, EDITS[:1], ("",))
    with tiny_chat_lm.overlaid(muted):
        values = optimise_values(tiny_chat_lm, problems, 0, replace(SETTINGS, stop_loss=0.0))
        bound = optimise_values(tiny_chat_lm, problems, 0, replace(SETTINGS, stop_loss=0.0, floor=0.0))
    assert values.delta.norm() > 50 * bound.delta.norm()
    assert values.loss[0] < bound.loss[0] - 0.1


def test_easy_edits_stop_first(tiny_chat_lm: LanguageModel) -> None:
    problems = build_problems(tiny_chat_lm, EDITS, ("",))
    probe = optimise_values(tiny_chat_lm, problems, 0, replace(SETTINGS, steps=1, stop_loss=0.0))
    limit = float(probe.loss.min()) + 1e-3
    values = optimise_values(tiny_chat_lm, problems, 0, replace(SETTINGS, stop_loss=limit))
    assert int(values.steps.min()) == 0
    assert int(values.steps.max()) > 0


def test_active_edits_belong_to_the_model(tiny_chat_lm: LanguageModel) -> None:
    problems = build_problems(tiny_chat_lm, EDITS[:1], ("",))
    plain = optimise_values(tiny_chat_lm, problems, 0, SETTINGS)
    with tiny_chat_lm.overlaid(low_rank(tiny_chat_lm, layer=0)):
        edited = optimise_values(tiny_chat_lm, problems, 0, SETTINGS)
    assert not torch.allclose(plain.start, edited.start, atol=1e-2)


@pytest.mark.parametrize("layer", [-1, 1, 2])
def test_a_layer_that_nothing_reads_is_refused(tiny_chat_lm: LanguageModel, layer: int) -> None:
    with pytest.raises(EditRefused, match="Choose a layer from 0 to 0"):
        optimise_values(tiny_chat_lm, build_problems(tiny_chat_lm, EDITS[:1], ("",)), layer, SETTINGS)


def test_row_adam_is_adam() -> None:
    start = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    rows, leaf = start.clone(), start.clone().requires_grad_(True)
    adam, reference = RowAdam(rows, 0.1), torch.optim.Adam([leaf], lr=0.1)
    for step in range(8):
        gradient = torch.randn(3, 5, generator=torch.Generator().manual_seed(step + 1))
        leaf.grad = gradient
        reference.step()
        rows -= adam.step(torch.arange(3), gradient)
    assert torch.allclose(rows, leaf.detach(), atol=1e-5)
