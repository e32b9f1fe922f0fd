"""ROME and R-ROME against an independent float64 form, and what they do to a model that knows facts."""

from __future__ import annotations

import pytest
import torch

from editors.base import EditRefused
from editors.keys import mean_by_group, subject_activations
from editors.passes import down_projection
from editors.prefixes import sample_prefixes
from editors.problems import build_problems
from editors.registry import get_editor
from editors.rome import RELEASED_VALUES, VALUES, rank_one, sequence_of_rank_ones
from editors.statistics import MomentStore
from editors.values import optimise_values
from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from tests.editors.helpers import capital_edit


def test_the_update_is_the_closed_form(tiny_chat_lm: LanguageModel, moments: MomentStore, edit: Edit) -> None:
    layer = 0
    overlay = get_editor("r-rome", moments=moments, layer=layer, prefixes=4, dosed=False, repair=0).edit(
        tiny_chat_lm, [edit]
    )
    module = down_projection(tiny_chat_lm, layer)
    weight, bias = weight_in_out(module).detach().double(), module.bias.detach().double()
    delta = overlay.delta(tiny_chat_lm.architecture.down(layer)).double()

    prefixes = sample_prefixes(tiny_chat_lm, count=4)
    problems = build_problems(tiny_chat_lm, [edit], prefixes)
    target = optimise_values(tiny_chat_lm, problems, layer, VALUES).target[0]
    keys = subject_activations(tiny_chat_lm, problems[0].rows, [layer])[layer].keys
    key = (keys * torch.tensor(problems[0].weights).double()[:, None]).sum(0)

    # W k* = v*
    assert torch.linalg.norm(key @ (weight + delta) + bias - target) <= 1e-4 * target.norm()
    # the whole change, by an explicit inverse instead of a Cholesky solve
    inverse = torch.linalg.inv(moments.get(tiny_chat_lm, [layer])[layer].matrix)
    direction = inverse @ key
    wanted = torch.outer(direction, target - (key @ weight + bias)) / (key @ direction)
    assert torch.linalg.norm(delta - wanted) <= 1e-4 * wanted.norm()
    # directions off the key change by what the formula says, and C^-1-orthogonal ones not at all
    other = torch.randn(len(key), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    share = (other @ direction) / (key @ direction)
    assert torch.allclose(other @ delta, share * (key @ delta), atol=1e-5 * float((key @ delta).norm()))
    untouched = other - (other @ direction) / (direction @ direction) * direction
    assert float((untouched @ delta).norm()) < 1e-4 * float((key @ delta).norm())


def test_a_dosed_value_is_found_under_what_each_row_will_get(
    tiny_chat_lm: LanguageModel, moments: MomentStore, edit: Edit
) -> None:
    layer = 0
    overlay = get_editor("r-rome", moments=moments, layer=layer, prefixes=4, repair=0).edit(tiny_chat_lm, [edit])
    delta = overlay.delta(tiny_chat_lm.architecture.down(layer)).double()
    problems = build_problems(tiny_chat_lm, [edit], sample_prefixes(tiny_chat_lm, count=4))
    rows = (*problems[0].rows, *problems[0].essence)
    keys = subject_activations(tiny_chat_lm, rows, [layer])[layer].keys
    key = (keys[: len(problems[0].rows)] * torch.tensor(problems[0].weights).double()[:, None]).sum(0)
    direction = torch.linalg.inv(moments.get(tiny_chat_lm, [layer])[layer].matrix) @ key
    doses = (keys @ direction) / (key @ direction)
    found = optimise_values(tiny_chat_lm, problems, layer, VALUES, doses=[doses]).delta[0]
    assert torch.allclose(keys @ delta, doses[:, None] * found, atol=1e-3 * float(found.norm()))


def test_released_form_uses_two_keys(tiny_chat_lm: LanguageModel, moments: MomentStore, edit: Edit) -> None:
    layer = 0
    rows = build_problems(tiny_chat_lm, [edit], sample_prefixes(tiny_chat_lm, count=4))[0].rows
    keys = subject_activations(tiny_chat_lm, rows, [layer])[layer].keys
    assert (keys[0] - mean_by_group(keys, [0] * len(rows))[0]).norm() > 1e-3 * keys[0].norm()
    overlays = {
        key: get_editor("rome", moments=moments, layer=layer, prefixes=4, key=key).edit(tiny_chat_lm, [edit])
        for key in ("released", "mean", "prompt")
    }
    deltas = {key: overlay.delta(tiny_chat_lm.architecture.down(layer)) for key, overlay in overlays.items()}
    assert not torch.allclose(deltas["released"], deltas["mean"])
    assert not torch.allclose(deltas["released"], deltas["prompt"])
    plain = get_editor("r-rome", moments=moments, layer=layer, prefixes=4, repair=0, values=RELEASED_VALUES)
    same = plain.edit(tiny_chat_lm, [edit])
    assert torch.equal(deltas["mean"], same.delta(tiny_chat_lm.architecture.down(layer)))


def test_rank_one_maps_the_key_to_the_gap() -> None:
    generator = torch.Generator().manual_seed(0)
    direction, key = (torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(2))
    gap = torch.randn(5, generator=generator, dtype=torch.float64)
    u, v = rank_one(direction, key, gap)
    assert torch.allclose(key @ u @ v, gap)


def test_a_sequence_satisfies_each_constraint_when_it_is_made() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    gaps = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    u, v = sequence_of_rank_ones(keys, keys, gaps)
    for count in range(1, 5):
        assert torch.allclose(keys[count - 1] @ u[:, :count] @ v[:count], gaps[count - 1])


def test_what_is_already_so_is_refused(trained: LanguageModel, moments: MomentStore) -> None:
    with pytest.raises(EditRefused, match="already answers"):
        get_editor("r-rome", moments=moments).edit(trained, [capital_edit("France", "Paris")])
