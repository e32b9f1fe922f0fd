"""EMMET's equality and AlphaEdit's null space against independent float64 forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from editors.alphaedit import null_space, null_space_factors, soft_factors
from editors.base import EditRefused
from editors.earlier import spared
from editors.emmet import equality_factors
from editors.registry import get_editor
from editors.rome import rank_one
from editors.statistics import MomentStore, SecondMoment
from language_model.model import LanguageModel
from tests.editors.helpers import capital_edit
from tests.editors.test_memit import random_moment


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_emmet_meets_every_target_and_disturbs_least(generator: torch.Generator) -> None:
    moment, keys, rest = random_moment(20, generator), draw(generator, 20, 5), draw(generator, 5, 7)
    u, v = equality_factors(moment, keys, rest)
    delta = u @ v
    assert torch.allclose(keys.T @ delta, rest, atol=1e-10)
    # any other solution costs more: add a change that the keys do not see
    hidden_from_keys = torch.eye(20, dtype=torch.float64) - keys @ torch.linalg.pinv(keys)
    for _ in range(5):
        other = delta + hidden_from_keys @ draw(generator, 20, 7)
        assert torch.allclose(keys.T @ other, rest, atol=1e-8)
        assert torch.trace(other.T @ moment.matrix @ other) > torch.trace(delta.T @ moment.matrix @ delta)


def test_emmet_of_one_edit_is_rome(generator: torch.Generator) -> None:
    moment, key, gap = random_moment(12, generator), draw(generator, 12), draw(generator, 4)
    u, v = equality_factors(moment, key[:, None], gap[None])
    ru, rv = rank_one(moment.solve(key), key, gap)
    assert torch.allclose(u @ v, ru @ rv)


def test_emmet_refuses_the_impossible(generator: torch.Generator) -> None:
    keys = draw(generator, 20, 3)
    keys[:, 2] = keys[:, 0] * 2
    with pytest.raises(EditRefused, match="same key"):
        equality_factors(random_moment(20, generator), keys, draw(generator, 3, 4))


@pytest.mark.parametrize("facts", [0, 6, 40])
def test_alphaedit_is_the_papers(generator: torch.Generator, facts: int) -> None:
    moment, keys, rest = random_moment(24, generator), draw(generator, 24, 5), draw(generator, 5, 7)
    earlier = draw(generator, 24, facts) if facts else torch.zeros(1, 0, dtype=torch.float64)
    basis, _ = null_space(moment, 0.4)
    assert 2 < basis.shape[1] < 24
    u, v = null_space_factors(basis, keys, earlier, rest, 0.3)
    projector = basis @ basis.T
    past = earlier @ earlier.T if facts else torch.zeros(24, 24, dtype=torch.float64)
    system = past @ projector + keys @ keys.T @ projector + 0.3 * torch.eye(24, dtype=torch.float64)
    wanted = rest.T @ keys.T @ projector @ torch.linalg.inv(system)  # (out, in), eq. 14
    assert torch.allclose((u @ v).T, wanted, atol=1e-10)


def test_preserved_keys_are_not_touched(generator: torch.Generator) -> None:
    """Keys outside the null space see no change at all."""
    moment, keys, rest = random_moment(24, generator), draw(generator, 24, 5), draw(generator, 5, 7)
    basis, _ = null_space(moment, 0.3)
    u, v = null_space_factors(basis, keys, torch.zeros(0, 1, dtype=torch.float64), rest, 0.1)
    common = draw(generator, 24, 9)
    common = common - basis @ (basis.T @ common)
    assert float((common.T @ u @ v).abs().max()) < 1e-10


def test_the_null_space_holds_no_more_than_its_share(generator: torch.Generator) -> None:
    root = draw(generator, 16, 16)
    moment = SecondMoment(root @ root.T, 100, 0.0)
    basis, power = null_space(moment, 0.05)
    total = float(torch.trace(moment.matrix))
    assert power <= 0.05 * total
    assert power == pytest.approx(float(torch.trace(basis.T @ moment.matrix @ basis)))
    scaled, _ = null_space(SecondMoment(moment.matrix * 1e6, 100, 0.0), 0.05)
    assert scaled.shape == basis.shape  # relative: the model's scale does not matter


def test_earlier_facts_are_protected(tiny_chat_lm: LanguageModel, moments: MomentStore) -> None:
    """Against the same edit without them, the outputs at the earlier facts' keys move less."""
    first, second = capital_edit("Peru", "Oslo"), capital_edit("Spain", "Cairo")
    editor = get_editor(
        "alphaedit", moments=moments, layers=(0,), prefixes=2, soft=False, repair=0, energy=0.5, l2=0.01
    )
    base = editor.edit(tiny_chat_lm, [first])
    free = editor.edit(tiny_chat_lm, [second], base=base)
    kept = editor.edit(tiny_chat_lm, [second], base=base, earlier=[first])
    name = tiny_chat_lm.architecture.down(0)
    trace = tiny_chat_lm.trace([first.text], inputs=[name], overlays=[base])
    length = len(tiny_chat_lm.codec.encode("The capital of Peru"))
    key = trace.input(name)[0, length - 1]
    moved = [float((key @ overlay.delta(name)).norm()) for overlay in (free, kept)]  # type: ignore[operator]
    assert moved[1] < 0.3 * moved[0]


@pytest.mark.parametrize("facts", [0, 6, 40])
def test_the_soft_form_is_its_formula(generator: torch.Generator, facts: int) -> None:
    moment, keys, rest = random_moment(24, generator), draw(generator, 24, 5), draw(generator, 5, 7)
    earlier = draw(generator, 24, facts) if facts else torch.zeros(1, 0, dtype=torch.float64)
    u, v = soft_factors(moment, keys, earlier, rest, 0.7, 0.02)
    past = earlier @ earlier.T if facts else torch.zeros(24, 24, dtype=torch.float64)
    system = 0.7 * (moment.matrix + 0.02 * past) + keys @ keys.T
    assert torch.allclose(u @ v, torch.linalg.solve(system, keys @ rest), atol=1e-10)


def test_spared_keys_see_less_of_a_direction(generator: torch.Generator) -> None:
    moment, earlier, keys = random_moment(20, generator), draw(generator, 6, 20), draw(generator, 3, 20)
    free = moment.solve(keys.T).T
    assert torch.equal(spared(moment, earlier, free, 0.0), free)
    for weight in (0.1, 10.0):
        found = spared(moment, earlier, free, weight)
        wanted = torch.linalg.solve(moment.matrix + weight * earlier.T @ earlier, keys.T).T
        assert torch.allclose(found, wanted, atol=1e-10)
    assert (earlier @ found.T).norm() < 0.05 * (earlier @ free.T).norm()
