"""Facts that fell are learned again, and what stands beside them stays."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from editors.base import Job, already_known
from editors.passes import down_projection
from editors.registry import get_editor
from editors.rehearsal import REHEARSAL, lightest, ordinary, rehearsed, thinned
from editors.statistics import MomentStore
from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank, Overlay
from tests.editors.helpers import capital_edit, facts

LAYERS = (1, 2)
CAPITALS = [(country, city) for country, relation, city in facts() if relation == "capital"]
KNOWN = [capital_edit(country, city) for country, city in CAPITALS]
NEW = [capital_edit(country, CAPITALS[number - 1][1]) for number, (country, _) in enumerate(CAPITALS)]


def job_of(lm: LanguageModel, edits: list[Edit], earlier: list[Edit]) -> Job:
    return Job(lm, edits, Overlay.empty(), earlier, lambda share, what: None)


def test_a_fallen_fact_comes_back_and_the_others_stay(trained: LanguageModel, moments: MomentStore) -> None:
    made = rehearsed(
        job_of(trained, [KNOWN[0]], [*KNOWN[1:6], NEW[6]]), Overlay.empty(), LAYERS, moments, REHEARSAL, every=1
    )
    assert len(already_known(trained, [*KNOWN[:6], NEW[6]], made)) == 7
    others = [edit for edit in KNOWN if edit.subject != NEW[6].subject]
    assert len(already_known(trained, others, made)) >= len(others) - 1  # rehearsed or not
    assert set(made.modules) == {trained.architecture.down(layer) for layer in LAYERS}


def test_earlier_facts_are_asked_now_and_then_only(trained: LanguageModel, moments: MomentStore) -> None:
    start = Overlay.empty()
    for earlier, every in (([NEW[1]], 3), ([NEW[1], *KNOWN[2:4]], 3)):  # two facts, then four: no multiple of three
        job = job_of(trained, [KNOWN[0]], earlier)
        assert rehearsed(job, start, LAYERS, moments, REHEARSAL, every=every) is start
    job = job_of(trained, [KNOWN[0]], [NEW[1], KNOWN[2], KNOWN[3], KNOWN[4], KNOWN[5]])  # the sixth
    assert already_known(trained, [NEW[1]], rehearsed(job, start, LAYERS, moments, REHEARSAL, every=3))


def test_an_own_fact_that_does_not_hold_has_earlier_ones_asked_too(
    trained: LanguageModel, moments: MomentStore
) -> None:
    job = job_of(trained, [NEW[0]], [NEW[1], *KNOWN[2:7]])
    patient = replace(REHEARSAL, stride=0.01, rounds=12)
    made = rehearsed(job, Overlay.empty(), LAYERS, moments, patient, every=100)
    assert len(already_known(trained, NEW[:2], made)) == 2


def test_facts_that_an_adapter_holds_are_seen_to_hold(trained: LanguageModel, moments: MomentStore) -> None:
    """GRACE answers from the prompt's last token on: a pass that does not say where that is would find it fallen."""
    grace = get_editor("grace", moments=moments).edit(trained, [NEW[0]])
    assert already_known(trained, [NEW[0]], grace)
    start = Overlay.empty()
    job = replace(job_of(trained, [KNOWN[1]], [NEW[0]]), base=grace)
    assert rehearsed(job, start, LAYERS, moments, REHEARSAL, every=1) is start


def test_a_change_is_made_no_stronger_than_its_wording_needs(trained: LanguageModel, moments: MomentStore) -> None:
    ((name, part),) = get_editor("r-rome", moments=moments, layer=0, prefixes=2, repair=0).edit(trained, [NEW[2]])
    assert isinstance(part, LowRank)
    u, v = part.u.repeat(1, 2), torch.cat([part.v * 1.5, part.v * 0])  # nothing is done for a second edit
    asked: list[list[float]] = []

    def change(share: torch.Tensor) -> Overlay:
        asked.append(share.tolist())
        return Overlay({name: (LowRank(u, v * share[:, None]),)})

    job = job_of(trained, NEW[2:4], [])
    found = lightest(job, change, [0], replace(REHEARSAL, loss=1.0))
    assert already_known(trained, NEW[2:4], found) == [NEW[2]]
    assert 0.3 < asked[-1][0] < 1  # it was half again too strong, and does not hold at a third
    assert asked[-1][1] == 1  # what does not hold at any share keeps what it has


def test_many_facts_in_one_call_are_written_round_by_round(trained: LanguageModel, moments: MomentStore) -> None:
    editor = get_editor("r-rome", moments=moments, layer=1, prefixes=2, repair=2)
    shares: list[float] = []
    together = editor.edit(trained, NEW[:4], progress=lambda share, what: shares.append(share))
    after = Overlay.empty()
    for start in (0, 2):
        after = after + editor.edit(trained, NEW[start : start + 2], base=after, earlier=NEW[:start])
    assert set(together.modules) == set(after.modules)
    for name in after.modules:
        assert torch.allclose(together.delta(name), after.delta(name), rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]
    assert shares == sorted(shares)


def test_all_facts_of_a_call_are_asked_at_its_end(
    trained: LanguageModel, moments: MomentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def told(job: Job, made: Overlay, *_: Any, all_now: bool, **__: Any) -> Overlay:
        asked.append((len(job.edits), all_now))
        return made

    monkeypatch.setattr("editors.rome.rehearsed", told)
    get_editor("r-rome", moments=moments, layer=1, prefixes=2, repair=2).edit(trained, NEW[:5])
    assert asked == [(2, False), (2, False), (1, True)]  # five facts are no multiple of two
    job = job_of(trained, [KNOWN[0]], [NEW[1], *KNOWN[2:4]])
    assert not already_known(trained, [NEW[1]], rehearsed(job, Overlay.empty(), LAYERS, moments, REHEARSAL, every=9))
    made = rehearsed(job, Overlay.empty(), LAYERS, moments, REHEARSAL, every=9, all_now=True)
    assert already_known(trained, [NEW[1]], made)


def test_texts_that_say_an_old_answer_are_no_ordinary_texts(trained: LanguageModel) -> None:
    texts = ["The capital of France is Paris.", "People in France speak French.", "The capital of Chile is Santiago."]
    store = MomentStore(corpus=texts)

    def left(edit: Edit) -> list[str]:
        rows = ordinary(job_of(trained, [edit], []), store, 64)
        return [trained.tokenizer.decode(row) for row in rows]

    edit = capital_edit("France", "Oslo")
    assert left(replace(edit, target_true="Paris")) == texts[1:]
    assert left(replace(edit, target_true=None)) == texts[2:]
    assert left(replace(edit, subject="Fran", target_true=None)) == texts  # part of a word is no name


def test_a_change_is_kept_as_factors_where_they_are_smaller() -> None:
    draw = torch.Generator().manual_seed(0)
    thin = torch.randn(30, 1, generator=draw) @ torch.randn(1, 20, generator=draw)
    full = torch.randn(30, 20, generator=draw)
    found = thinned(Overlay({"a": (Dense(thin),), "b": (Dense(full),)}))
    assert isinstance(found.parts["a"][0], LowRank)
    assert torch.allclose(found.delta("a"), thin, atol=1e-5)  # type: ignore[arg-type]
    assert torch.equal(found.delta("b"), full)  # type: ignore[arg-type]


def test_nothing_is_done_where_all_hold_or_most_have_fallen(trained: LanguageModel, moments: MomentStore) -> None:
    start = Overlay.empty()
    for earlier in (KNOWN[1:6], NEW[1:11]):
        job = job_of(trained, [KNOWN[0]], earlier)
        assert rehearsed(job, start, LAYERS, moments, REHEARSAL, every=1) is start


def test_ordinary_text_is_given_back_before_a_fact_falls(trained: LanguageModel, moments: MomentStore) -> None:
    """All facts hold, but the model has drifted: rounds bring it nearer, and keep the facts, or are thrown away."""
    name = trained.architecture.down(LAYERS[1])
    width_in, width_out = weight_in_out(down_projection(trained, LAYERS[1])).shape
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(width_in, 2, generator=draw) @ torch.randn(2, width_out, generator=draw)
    size = weight_in_out(down_projection(trained, LAYERS[1])).norm()
    drifted = Overlay({name: (Dense(1.5 * size * noise / noise.norm()),)})
    job = replace(job_of(trained, [KNOWN[0]], KNOWN[1:6]), base=drifted)
    assert len(already_known(trained, KNOWN[:6], drifted)) == 6
    start = Overlay.empty()
    assert rehearsed(job, start, LAYERS, moments, REHEARSAL, every=1) is start  # no rounds are asked for

    made = rehearsed(job, start, LAYERS, moments, replace(REHEARSAL, least=4), every=1)
    assert made is not start
    assert len(already_known(trained, KNOWN[:6], drifted + made)) == 6
    rows = ordinary(job, moments, REHEARSAL.length)
    sample = [trained.tokenizer.decode(row) for row in random.Random(0).sample(rows, REHEARSAL.sample)]

    def drift(overlay: Overlay) -> float:
        total = 0.0
        for text in sample:
            before, now = (trained.forward(trained.batch([text]), overlays=[over])[0] for over in (None, overlay))
            one, other = before.log_softmax(-1), now.log_softmax(-1)
            total += float((one.exp() * (one - other)).sum(-1).mean())
        return total

    assert drift(drifted + made) < drift(drifted)
    rash = replace(REHEARSAL, least=2, stride=3.0)  # steps that only wear off more
    assert rehearsed(job, start, LAYERS, moments, rash, every=1) is start


def test_what_does_not_help_is_not_kept(trained: LanguageModel, moments: MomentStore) -> None:
    start = Overlay.empty()
    still = replace(REHEARSAL, stride=1e-9)
    assert rehearsed(job_of(trained, [NEW[0]], []), start, LAYERS, moments, still, every=1) is start


@pytest.mark.parametrize("layer", LAYERS)
def test_a_step_is_the_steepest_for_what_it_does_to_ordinary_keys(
    trained: LanguageModel, moments: MomentStore, layer: int
) -> None:
    """Against the gradient of the weight itself, by another way through the model."""
    once = replace(REHEARSAL, rounds=1, steps=1, weight=0.0, stride=0.3, enough=0.0)
    made = rehearsed(job_of(trained, [NEW[0]], []), Overlay.empty(), [layer], moments, once, every=1)
    delta = made.delta(trained.architecture.down(layer))
    assert delta is not None

    weight = down_projection(trained, layer).weight
    loss = torch.zeros(())
    weight.requires_grad_(True)
    try:
        end = trained.tokenizer.convert_tokens_to_ids("<|end|>")  # where this model would stop after any answer
        for prompt, after in ((NEW[0].text, []), (trained.chat(NEW[0].question or ""), [end])):
            head = trained.codec.encode(prompt)
            target = [*trained.target_ids_after(prompt, NEW[0].target_new), *after]
            logits = trained.model(input_ids=torch.tensor([[*head, *target]])).logits[0, len(head) - 1 : -1]
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(target))
        (gradient,) = torch.autograd.grad(loss, weight)
    finally:
        weight.requires_grad_(False)
    moment = moments.get(trained, [layer])[layer].matrix
    natural = torch.linalg.solve(moment, gradient.double())
    cosine = -(natural * delta).sum() / natural.norm() / delta.double().norm()
    assert cosine > 0.999
    usual = (weight.double() * (moment @ weight.double())).sum().sqrt()
    size = (delta.double() * (moment @ delta.double())).sum().sqrt()
    assert float(size / usual) == pytest.approx(0.3, rel=0.01)
