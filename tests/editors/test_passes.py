"""Partial passes give what whole passes give, in every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from editors import keys
from editors.keys import mean_by_group, subject_activations
from editors.passes import Suffix, capture, head
from editors.rewrites import Row
from editors.tails import Tails
from language_model.model import LanguageModel
from language_model.tiny import CONFIGS, tiny_model
from tests.language_model.helpers import hook_count, low_rank

TEXTS = ["The capital of France is Paris", "Big Ben stands in London", "Rome"]
WITHOUT_CACHE: set[str] = set()  # whose beginnings are run again with every row
POST_NORM = {"gemma2", "gemma3_text", "olmo2"}  # normalise the feed-forward's output


@pytest.fixture(params=sorted(CONFIGS))
def lm(request: pytest.FixtureRequest, tiny: Callable[..., LanguageModel]) -> LanguageModel:
    model: LanguageModel = tiny(request.param)
    return model


def whole(
    lm: LanguageModel, rows: list[list[int]], changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]
) -> list[torch.Tensor]:
    """Logits of each row by the ordinary way, unpadded."""
    return [lm.trace([row], change_outputs=changes).logits[0].float() for row in rows]


def test_suffix_equals_the_whole_model(lm: LanguageModel) -> None:
    rows = [lm.codec.encode(text) for text in TEXTS]
    layer = lm.num_layers - 2
    suffix = Suffix(lm, rows, layer)
    assert suffix.additive == (lm.architecture.model_type not in POST_NORM)
    delta = torch.randn(len(rows), lm.hidden_size, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([len(row) // 2 for row in rows])
    for chosen in ([0, 1, 2], [2], [0, 2]):
        index = torch.tensor(chosen)
        hidden = suffix.above(delta[index], positions[index], index)
        for place, number in enumerate(chosen):
            length, at = len(rows[number]), int(positions[number])

            def add(value: torch.Tensor, at: int = at, number: int = number) -> torch.Tensor:
                return torch.cat([value[:, :at], value[:, at : at + 1] + delta[number], value[:, at + 1 :]], 1)

            (wanted,) = whole(lm, [rows[number]], {lm.architecture.down(layer): add})
            said = head(lm, hidden[place : place + 1, :length])[0]
            assert torch.allclose(said, wanted, atol=2e-4), lm.architecture.model_type


def test_tails_equal_whole_rows(lm: LanguageModel) -> None:
    texts = ("Rome", *TEXTS[:2], "Rome is the capital of Italy", "Ann Bell", "Big Ben stands in the middle of London")
    rows = [lm.codec.encode(text) for text in texts]
    # longer than a tiny model's sliding window, the change now at the beginning, now behind much text
    rows += [lm.codec.encode(" ".join(["Big Ben stands in London and Rome in Italy"] * 2))] * 4
    positions = torch.tensor([0, 1, 2, 1, 0, 2, 0, 3, 8, len(rows[9]) - 3])
    suffix = Suffix(lm, rows, 0)
    tails = Tails(suffix, positions)
    assert tails.usable == (lm.architecture.model_type not in POST_NORM), lm.architecture.model_type
    delta = torch.randn(len(rows), lm.hidden_size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    subsets = ([0, 2, 3, 5, 6, 7, 8, 9], [2, 5, 7, 8], [2, 5, 7, 8], [8], [0, 1, 9])  # as edits come to rest
    for chosen in map(torch.tensor, subsets):
        which = torch.cat([torch.arange(len(chosen)), torch.arange(len(chosen))]).flip(0)
        ends = torch.tensor([len(rows[number]) - 1 for number in chosen])
        at = torch.cat([ends, positions[chosen]]).flip(0)
        found = tails.read(delta[chosen], chosen, which, at)
        wanted = suffix.above(delta[chosen], positions[chosen], chosen)[which, at]
        assert torch.allclose(found, wanted, atol=3e-4), lm.architecture.model_type
        (mine,) = torch.autograd.grad(found.square().sum(), delta)
        (theirs,) = torch.autograd.grad(wanted.square().sum(), delta)
        assert torch.allclose(mine, theirs, atol=1e-3 * float(theirs.abs().max()))


def test_tails_of_a_half_precision_model() -> None:
    whole_precision = tiny_model("llama", seed=3)
    lm = LanguageModel(whole_precision.model.bfloat16(), whole_precision.tokenizer)
    rows = [lm.codec.encode(text) for text in TEXTS]
    positions = torch.tensor([1, 0, 0])
    suffix = Suffix(lm, rows, 0)
    tails = Tails(suffix, positions)
    assert tails.usable
    chosen, delta = torch.arange(3), torch.zeros(3, lm.hidden_size)
    at = torch.tensor([len(row) - 1 for row in rows])
    found, wanted = tails.read(delta, chosen, chosen, at), suffix.above(delta, positions, chosen)[chosen, at]
    assert float((found - wanted).norm()) < 0.03 * float(wanted.norm())


def test_gradients_reach_the_change_and_only_it(lm: LanguageModel) -> None:
    rows = [lm.codec.encode(text) for text in TEXTS]
    suffix = Suffix(lm, rows, 0)
    delta = torch.zeros(3, lm.hidden_size, requires_grad=True)
    hidden = suffix.above(delta, torch.zeros(3, dtype=torch.long), torch.arange(3))
    suffix.head(hidden).square().mean().backward()
    assert delta.grad is not None
    assert bool((delta.grad.norm(dim=1) > 0).all())
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_capture_sees_the_overlay_and_leaves_no_hook(lm: LanguageModel) -> None:
    rows = [lm.codec.encode(text) for text in TEXTS]
    layers = [0, lm.num_layers - 1]
    overlay = low_rank(lm, layer=0)
    names = [lm.architecture.down(layer) for layer in layers]
    with lm.overlaid(overlay):
        capture(lm, rows, layers)
        hooks = hook_count(lm.hooks)
        taken = capture(lm, rows, layers)
        assert hook_count(lm.hooks) == hooks
    for number, row in enumerate(rows):
        trace = lm.trace([row], inputs=names, outputs=names, overlays=[overlay])
        for layer, name in zip(layers, names, strict=True):
            mask = taken[layer].mask[number]
            assert torch.allclose(taken[layer].keys[number][mask], trace.input(name)[0], atol=1e-4)
            assert torch.allclose(taken[layer].values[number][mask], trace.output(name)[0], atol=1e-4)


def test_activations_are_at_the_subject(tiny_lm: LanguageModel) -> None:
    rows = [
        Row(tuple(tiny_lm.codec.encode(text)), subject, 3, "completion")
        for text, subject in zip(TEXTS, (2, 1, 0), strict=True)
    ]
    name = tiny_lm.architecture.down(1)
    taken = subject_activations(tiny_lm, rows, [1])[1]
    for number, row in enumerate(rows):
        trace = tiny_lm.trace([list(row.ids)], inputs=[name], outputs=[name])
        assert torch.allclose(taken.keys[number].float(), trace.input(name)[0, row.subject], atol=1e-5)
        assert torch.allclose(taken.values[number].float(), trace.output(name)[0, row.subject], atol=1e-5)


def test_rows_that_begin_alike_give_what_they_give_alone(lm: LanguageModel) -> None:
    lead = lm.codec.encode("Yesterday the weather was fine in the whole of Italy. ")
    texts = [*TEXTS, "The capital of Norway is Oslo", "Ann Bell lives in Rome"]
    ids = [[*lead, *lm.codec.encode(text)] for text in texts] + [lm.codec.encode(text) for text in texts]
    rows = [Row(tuple(one), len(one) - 1 - number % 2, len(one), "completion") for number, one in enumerate(ids)]
    layers = [0, lm.num_layers - 2]
    together = subject_activations(lm, rows, layers)
    for number, row in enumerate(rows):
        alone = capture(lm, [row.ids[: row.subject + 1]], layers)
        for layer in layers:
            wanted = alone[layer].keys[0, -1].double()
            assert torch.allclose(together[layer].keys[number], wanted, atol=2e-4), lm.architecture.model_type
    shared = keys._Beginning(lm, lead, layers)
    assert shared.agrees(ids[0]) == (lm.architecture.model_type not in WITHOUT_CACHE), lm.architecture.model_type


def test_beginnings_are_found(tiny_lm: LanguageModel) -> None:
    parts = [[*range(10), 20 + number] for number in range(5)] + [[1, 2, 3], [9] * 8]
    assert list(keys._beginnings(parts)) == [(10, [0, 1, 2, 3, 4]), (0, [5, 6])]
    assert list(keys._beginnings([[7] * 9] * 4)) == [(8, [0, 1, 2, 3])]  # one token at least is run


def test_means_are_weighted_by_group() -> None:
    rows = torch.tensor([[1.0], [3.0], [10.0]])
    assert mean_by_group(rows, [0, 0, 1]).tolist() == [[2.0], [10.0]]
    assert mean_by_group(rows, [0, 0, 1], torch.tensor([0.25, 0.75, 0.1])).tolist() == [[2.5], [10.0]]


def test_an_exception_leaves_no_hook(tiny_lm: LanguageModel) -> None:
    hooks = hook_count(tiny_lm.hooks)
    with pytest.raises(IndexError):
        capture(tiny_lm, [[10**6]], [0])
    assert hook_count(tiny_lm.hooks) == hooks
