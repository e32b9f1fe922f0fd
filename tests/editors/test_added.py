"""Added parameters: GRACE's radii, T-Patcher's silence, CaliNET's net; and knowledge neurons' attributions."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from editors.grace import Codebook, GraceEntries
from editors.kn import attributions
from editors.passes import Suffix
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.architectures import weight_in_out
from language_model.context import ForwardContext, use_context
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Overlay
from tests.editors.helpers import capital_edit, corpus


def book(*entries: tuple[float, float, int]) -> Codebook:
    """A codebook on a line, from (key, radius, label), added in order."""
    none = torch.zeros(0, dtype=torch.long)
    empty = Codebook(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0), none, none)
    keys = torch.tensor([[key] for key, _, _ in entries])
    radii = torch.tensor([radius for _, radius, _ in entries])
    labels = torch.tensor([label for _, _, label in entries])
    return empty.extended(keys, keys.clone(), radii, labels, torch.ones_like(labels))


def test_far_entries_keep_their_radius() -> None:
    assert book((0.0, 1.0, 1), (5.0, 1.0, 2)).radii.tolist() == [1.0, 1.0]


def test_the_same_answer_stands_beside_with_its_own_value() -> None:
    settled = book((0.0, 1.0, 1), (1.5, 1.0, 1))
    assert settled.radii.tolist() == [1.0, 1.0]
    nearest, hit = settled.lookup(torch.tensor([[0.6], [0.9], [2.4]]))
    assert nearest.tolist() == [0, 1, 1]
    assert hit.all()


def test_another_answer_halves_the_distance() -> None:
    settled = book((0.0, 1.0, 1), (1.0, 1.0, 2))
    assert settled.radii.tolist() == pytest.approx([0.5, 0.5], rel=1e-3)
    assert float(settled.radii.sum()) < 1.0  # they do not touch
    nearest, hit = settled.lookup(torch.tensor([[0.4], [0.6], [1.4], [1.6]]))
    assert nearest.tolist() == [0, 1, 1, 1]
    assert hit.tolist() == [True, True, True, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 2), st.integers(0, 2)), min_size=1, max_size=8))
def test_every_new_key_gets_its_own_answer(entries: list[tuple[float, float, int]]) -> None:
    keys = [key for key, _, _ in entries]
    if any(abs(a - b) < 1e-3 for a, b in itertools.combinations(keys, 2)):
        return
    settled = book(*entries)
    key, _, label = entries[-1]
    nearest, hit = settled.lookup(torch.tensor([[key]]))
    assert bool(hit[0])
    assert int(settled.labels[nearest[0]]) == label


def entries_of(key: float, radius: float, label: int, value: float) -> GraceEntries:
    module = GraceEntries(1, 2, 1)
    module.keys[0], module.values[0], module.radii[0], module.labels[0] = torch.tensor([key, 0.0]), value, radius, label
    return module


def answer(chain: list[GraceEntries], query: float) -> float:
    """What a row of entries makes of an output of 0."""
    context = ForwardContext(torch.tensor([0]), None, torch.tensor([0]))
    x, y = torch.tensor([[[query, 0.0]]]), torch.zeros(1, 1, 1)
    for module in chain:
        with use_context(ForwardContext(context.rows, None, context.last_prompt)):
            y = module(x, y)
    return float(y)


def test_undoing_an_entry_gives_back_its_room() -> None:
    first, second = entries_of(0.0, 2.0, 1, 10.0), entries_of(1.0, 2.0, 2, 20.0)
    assert answer([first], 0.9) == 10.0
    assert [answer([first, second], q) for q in (0.2, 0.9, 1.4, 1.6)] == [10.0, 20.0, 20.0, 0.0]
    assert answer([first], 0.9) == 10.0  # as if the second had never been
    assert answer([second], 0.2) == 20.0


def test_a_value_stands_in_as_long_as_the_answer_is() -> None:
    module, state = entries_of(0.0, 1.0, 1, 10.0), dict[str, object]()
    module.lengths[0] = 2
    seen = []
    for step in range(4):  # the prompt's last token, then one token a step
        context = ForwardContext(torch.tensor([0]), None, torch.tensor([0 if step == 0 else -1]), step, state)
        with use_context(context):
            seen.append(float(module(torch.tensor([[[0.0, 0.0]]]), torch.zeros(1, 1, 1))))
    assert seen == [10.0, 10.0, 0.0, 0.0]
    with use_context(ForwardContext(torch.tensor([0]), None, torch.tensor([1]))):  # the same in one pass, for scoring
        whole = module(torch.zeros(1, 5, 2), torch.zeros(1, 5, 1))
    assert whole[0, :, 0].tolist() == [0.0, 10.0, 10.0, 0.0, 0.0]


def test_values_hold_while_generating(trained: LanguageModel, moments: MomentStore) -> None:
    """The key is the prompt's last token, also when later tokens are computed from the cache."""
    edit = capital_edit("France", "Kathmandu")
    overlay = get_editor("grace", moments=moments, radius=0.1).edit(trained, [edit])
    prompts = [edit.text, trained.chat(edit.question or ""), "People in Kenya speak"]
    said = trained.generate(prompts, max_new_tokens=6, overlays=[overlay] * 3)
    for prompt, text in zip(prompts, said, strict=True):
        head, tail = trained.codec.encode(prompt), list[int]()
        for _ in range(6):  # the same without a cache
            logits = trained.forward(trained.batch([head], [tail]), overlays=[overlay])
            tail.append(int(logits[0, -1].argmax()))
            if tail[-1] in trained.end_ids:
                break
        assert trained.codec.decode(tail).strip() == text
    assert said[2] == trained.generate(prompts[2:], max_new_tokens=6)[0]
    scores = trained.score(prompts[:2], ["Kathmandu"] * 2, overlays=[overlay] * 2)
    assert all(score.exact for score in scores)


def test_patches_are_silent_elsewhere(trained: LanguageModel, moments: MomentStore) -> None:
    edit = capital_edit("France", "Oslo")
    overlay = get_editor("t-patcher", moments=moments).edit(trained, [edit])
    ((_, part),) = list(overlay)
    assert isinstance(part, Adapter)
    forms = [edit.text, trained.chat(edit.question or "")]
    assert all(score.exact for score in trained.score(forms, ["Oslo"] * 2, overlays=[overlay] * 2))
    texts = [text for text in corpus() if "France" not in text]
    same = 0
    for text in texts[:60]:
        batch = trained.batch([text])
        with torch.no_grad():
            same += int(torch.equal(trained.forward(batch), trained.forward(batch, overlays=[overlay])))
    assert same >= 50


def test_attributions_are_complete(tiny_lm: LanguageModel) -> None:
    """They sum to the change of the probability between no activation and the activation that there is."""
    ids = tuple(tiny_lm.codec.encode("The capital of France is"))
    for layer in range(tiny_lm.num_layers):
        scores = attributions(tiny_lm, ids, layer, 7, steps=300)
        assert float(scores.sum()) == pytest.approx(
            _chance(tiny_lm, ids, layer, 1.0, 7) - _chance(tiny_lm, ids, layer, 0.0, 7), rel=0.01, abs=1e-6
        )


def test_attributions_follow_finite_differences(tiny_lm: LanguageModel) -> None:
    """One neuron's score is its value times the mean slope along the path, here by differences of whole passes."""
    ids, layer, token, steps = tuple(tiny_lm.codec.encode("Rome is")), 0, 11, 40
    scores = attributions(tiny_lm, ids, layer, token, steps)
    suffix = Suffix(tiny_lm, [list(ids)], layer)
    value = suffix.keys[0, -1]
    for neuron in scores.abs().topk(3).indices.tolist():
        nudge = 1e-2 * float(value.abs().max())
        slopes = []
        for step in range(steps):
            share = (step + 0.5) / steps
            up = _chance(tiny_lm, ids, layer, share, token, neuron, nudge)
            down = _chance(tiny_lm, ids, layer, share, token, neuron, -nudge)
            slopes.append((up - down) / (2 * nudge))
        assert float(scores[neuron]) == pytest.approx(float(value[neuron]) * sum(slopes) / steps, rel=0.02, abs=1e-7)


def _chance(
    lm: LanguageModel, ids: tuple[int, ...], layer: int, share: float, token: int, neuron: int = 0, nudge: float = 0.0
) -> float:
    """P(token) with the last position's neurons scaled by ``share``, and one of them moved."""

    def scale(value: Tensor) -> Tensor:
        changed = value.clone()
        changed[:, -1] *= share
        changed[:, -1, neuron] += nudge
        return changed

    trace = lm.trace([list(ids)], change_inputs={lm.architecture.down(layer): scale})
    return float(trace.logits[0, -1].double().softmax(-1)[token])


def test_neurons_are_rewritten_by_row(trained: LanguageModel, moments: MomentStore) -> None:
    edit = capital_edit("France", "Oslo")
    overlay = get_editor("kn", moments=moments, prefixes=2, action="suppress").edit(trained, [edit])
    for name, part in overlay:
        assert not isinstance(part, Adapter)
        weight = weight_in_out(trained.module(name))
        delta = part.dense()
        touched = delta.abs().sum(1) > 0
        assert 1 <= int(touched.sum()) <= 20
        assert torch.allclose((weight + delta)[touched], torch.zeros_like(delta[touched]), atol=1e-6)
    assert isinstance(overlay, Overlay)
