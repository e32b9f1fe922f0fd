"""MEMIT against independent float64 forms."""

from __future__ import annotations

import pytest
import torch

from editors.base import EditRefused
from editors.memit import compact, ridge_factors
from editors.passes import down_projection
from editors.registry import get_editor
from editors.statistics import MomentStore, SecondMoment
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit, corpus


def random_moment(width: int, generator: torch.Generator) -> SecondMoment:
    root = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return SecondMoment(root @ root.T / width + 0.1 * torch.eye(width, dtype=torch.float64), 1000, 0.0)


@pytest.mark.parametrize("edits", [1, 5, 40])
def test_the_solve_is_the_papers(edits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    moment = random_moment(24, generator)
    keys = torch.randn(24, edits, generator=generator, dtype=torch.float64)
    rest = torch.randn(edits, 10, generator=generator, dtype=torch.float64)
    u, v = ridge_factors(moment, keys, rest, 7.0)
    wanted = rest.T @ keys.T @ torch.linalg.inv(7.0 * moment.matrix + keys @ keys.T)  # R K^T (lambda C + K K^T)^-1
    assert torch.allclose((u @ v).T, wanted, atol=1e-10)
    # and it is the least-squares solution: the gradient of |K^T delta - R|^2 + lambda tr(delta^T C delta) is nought
    delta = (u @ v).requires_grad_(True)
    loss = (keys.T @ delta - rest).square().sum() + 7.0 * torch.trace(delta.T @ moment.matrix @ delta)
    (gradient,) = torch.autograd.grad(loss, delta)
    assert float(gradient.abs().max()) < 1e-9


def test_factors_take_the_smaller_form() -> None:
    assert isinstance(compact(torch.zeros(20, 2), torch.zeros(2, 10)), LowRank)
    assert isinstance(compact(torch.zeros(20, 9), torch.zeros(9, 10)), Dense)


def test_one_layer_without_a_penalty_meets_the_target(tiny_chat_lm: LanguageModel, moments: MomentStore) -> None:
    """With lambda near nought and one layer MEMIT is an exact constraint: K^T delta = d."""
    from editors.keys import mean_by_group, subject_activations
    from editors.memit import VALUES
    from editors.prefixes import sample_prefixes
    from editors.problems import build_problems
    from editors.values import optimise_values

    edits = [capital_edit("France", "Oslo"), capital_edit("Peru", "Tokyo")]
    overlay = get_editor("memit", moments=moments, layers=(0,), weight=1e-9).edit(tiny_chat_lm, edits)
    problems = build_problems(tiny_chat_lm, edits, sample_prefixes(tiny_chat_lm, count=5, lengths=(10,)))
    rows = [row for problem in problems for row in problem.rows]
    groups = [number for number, problem in enumerate(problems) for _ in problem.rows]
    weights = torch.tensor([weight for problem in problems for weight in problem.weights])
    keys = mean_by_group(subject_activations(tiny_chat_lm, rows, [0])[0].keys, groups, weights)
    delta = overlay.delta(tiny_chat_lm.architecture.down(0))
    assert delta is not None
    assert delta.shape == weight_in_out(down_projection(tiny_chat_lm, 0)).shape
    wanted = optimise_values(tiny_chat_lm, problems, 0, VALUES).delta
    assert (keys @ delta.double() - wanted).norm() < 1e-3 * wanted.norm()


def test_families_that_normalise_the_output_are_refused_for_several_layers() -> None:
    store = MomentStore(corpus=corpus())
    lm = tiny_model("gemma2", seed=3, num_hidden_layers=3)
    editor = get_editor("memit", moments=store, layers=(0, 1), prefixes=0)
    with pytest.raises(EditRefused, match="Use one layer"):
        editor.edit(lm, [capital_edit("France", "Oslo")])
    assert get_editor("memit", moments=store, layers=(0,), prefixes=0).edit(lm, [capital_edit("France", "Oslo")])
