"""MEND and KE: their factors against autograd, their formulas against dense ones, their training, their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editors.base import EditRefused
from editors.hypernetwork_data import Lessons, is_held_out
from editors.hypernetwork_training import Constraint, HyperTrainer, Objective, TrainSettings, make_batch, measure
from editors.hypernetworks import (
    Factors,
    edited_modules,
    fact_rows,
    go_on_from,
    gradient_factors,
    grouped_overlay,
    load_network,
    read_network,
    save_network,
)
from editors.ke import START as KE_START
from editors.ke import KeNet, KnowledgeEditor, norms
from editors.mend import START, Mend, MendNet, RunningStatistics
from editors.registry import get_editor
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.errors import InvalidInput
from knowledge.world import load_world
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit, train_hypernetwork

EDITS = [capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gptj"])
def test_the_factors_give_the_gradient_of_autograd(family: str) -> None:
    lm = tiny_model(family, chat=True, seed=5)
    modules = edited_modules(lm)
    factors = gradient_factors(lm, fact_rows(lm, EDITS), modules)
    rows = [item for item in fact_rows(lm, EDITS) if item.owner == 1]
    weights = [lm.module(name).weight for name in modules]
    loss = torch.zeros(())
    for weight in weights:
        weight.requires_grad_(True)
    for item in rows:
        ids = torch.tensor([item.row.ids])
        labels = ids.clone()
        labels[:, : item.row.start] = -100
        loss = loss + item.weight * lm.model(input_ids=ids, labels=labels).loss
    wanted = torch.autograd.grad(loss, weights)
    for name, gradient in zip(modules, wanted, strict=True):
        mine = factors[name].owner == 1
        found = factors[name].x[mine].T @ factors[name].delta[mine]
        inside = gradient if weight_in_out(lm.module(name)).shape == gradient.shape and family == "gpt2" else gradient.T
        assert torch.allclose(found, inside, atol=1e-5 * float(inside.abs().max()) + 1e-8), name


def test_gradients_belong_to_the_model_with_its_active_edits(tiny_chat_lm: LanguageModel) -> None:
    lm = tiny_chat_lm
    name = lm.architecture.down(0)
    overlay = Overlay({name: (LowRank(torch.randn(128, 1), torch.randn(1, 32)),)})
    with lm.overlaid(overlay):
        there = gradient_factors(lm, fact_rows(lm, EDITS), [name])[name]
    here = gradient_factors(lm, fact_rows(lm, EDITS), [name])[name]
    assert not torch.allclose(there.delta, here.delta)


def test_running_statistics_are_those_of_all_rows() -> None:
    rows = torch.randn(57, 6) * torch.arange(1, 7) + 3
    running = RunningStatistics(6)
    assert torch.equal(running(rows[:1]), rows[:1])
    for part in rows.split([1, 20, 36]):
        running.update(part)
    assert torch.allclose(running(rows), (rows - rows.mean(0)) / rows.std(0), atol=1e-4)


def test_mend_starts_as_a_gradient_step_on_normalised_factors(tiny_chat_lm: LanguageModel) -> None:
    lm = tiny_chat_lm
    net = MendNet.for_model(lm, rank=4)
    factors = gradient_factors(lm, fact_rows(lm, EDITS), net.modules_edited)
    net.observe(factors)
    for name, (u, v, owner) in net.changes(lm, EDITS, factors).items():
        x, delta = factors[name].x, factors[name].delta
        step = START * float(lm.module(name).weight.square().mean().sqrt()) / x.shape[1] ** 0.5
        spread = [part.std(0).clamp_min(1e-3 * float(part.std(0).mean())) for part in (x, delta)]
        wanted = -step * ((x - x.mean(0)) / spread[0]).T @ ((delta - delta.mean(0)) / spread[1])
        assert torch.allclose(u.T @ v, wanted, atol=1e-3 * float(wanted.abs().max()))
        assert torch.equal(owner, factors[name].owner)


def test_mend_shares_its_network_between_layers_of_one_shape(tiny_chat_lm: LanguageModel) -> None:
    net = MendNet.for_model(tiny_chat_lm, rank=4)
    assert len(net.modules_edited) == 4
    assert len(net.nets) == 2  # one for the up-projections, one for the down-projections
    assert net.nets[0][0].scale.shape == (2, 160)  # type: ignore[index]


def test_ke_is_the_papers_formula_on_the_whole_gradient(tiny_chat_lm: LanguageModel) -> None:
    lm = tiny_chat_lm
    net = KeNet.for_model(lm, hidden=6, bottleneck=5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    factors = gradient_factors(lm, fact_rows(lm, EDITS), net.modules_edited)
    net.requires_grad_(False)
    state = net.encode(lm, EDITS)
    made = net.changes(lm, EDITS, factors)
    for number, name in enumerate(net.modules_edited):
        u, v, owner = made[name]
        width_in, width_out = net.shapes[name]
        for edit in range(2):
            mine = factors[name].owner == edit
            gradient = factors[name].x[mine].T @ factors[name].delta[mine]
            assert float(norms(factors[name], 2)[edit]) == pytest.approx(float(gradient.norm()), rel=1e-4)
            said = net.heads[number](state)[edit].split([width_in, width_out, width_in, width_out, 1])
            alpha, gamma = (width_in * said[index].softmax(0) for index in (0, 2))
            weight = lm.module(name).weight.norm()
            size = said[4].sigmoid() * KE_START * net.steps[number].exp() * weight
            wanted = -size * torch.outer(alpha, 1 + said[1]) * gradient / gradient.norm()
            wanted = wanted + size / width_in**0.5 * torch.outer(gamma, said[3])
            found = u[owner == edit].T @ v[owner == edit]
            assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.fixture
def shifting(tiny_chat_lm: LanguageModel, tmp_path: Path) -> KnowledgeEditor:
    """KE whose affine term is the same for every edit and large, as training makes it."""
    net = KeNet.for_model(tiny_chat_lm, hidden=6, bottleneck=5)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for number, (width_in, width_out) in enumerate(net.shapes.values()):
            bias = net.heads[number].get_parameter("bias")
            bias[2 * width_in + width_out : -1] = 2 * torch.randn(width_out, generator=generator)
    save_network(net, tiny_chat_lm, tmp_path)
    return KnowledgeEditor(moments=MomentStore(cache_dir=tmp_path), refuse_known=False)


def test_what_ke_gives_every_edit_is_added_once(tiny_chat_lm: LanguageModel, shifting: KnowledgeEditor) -> None:
    lm = tiny_chat_lm
    edits = [*EDITS, capital_edit("Japan", "Lima"), capital_edit("Cuba", "Rome")]
    alone = shifting.edit(lm, edits[:1])
    together = shifting.edit(lm, edits)
    total = Overlay.empty()
    for number, edit in enumerate(edits):
        total = total + shifting.edit(lm, [edit], base=total, earlier=edits[:number])
    for name, norm in alone.norms(lm).items():
        assert together.norms(lm)[name] < 1.3 * norm  # four affine terms on top of each other: 4 times
        one, other = together.delta(name), total.delta(name)
        assert one is not None
        assert other is not None
        assert float((one - other).norm()) < 0.15 * float(one.norm())  # a sequence comes to what a batch is
    said = lm.score(
        [e.text for e in edits] * 2, [e.target_new for e in edits] * 2, overlays=[None] * 4 + [together] * 4
    )
    gained = [after.mean_logprob - before.mean_logprob for before, after in zip(said[:4], said[4:], strict=True)]
    assert sum(gained) > 0


def test_ke_reads_what_is_active_only_to_correct_it(tiny_chat_lm: LanguageModel, shifting: KnowledgeEditor) -> None:
    lm, (first, other) = tiny_chat_lm, EDITS
    base = shifting.edit(lm, [first])
    name = base.modules[0]

    def made(edit: Edit, earlier: list[Edit]) -> Tensor:
        found = shifting.edit(lm, [edit], base=base, earlier=earlier).delta(name)
        assert found is not None
        return found

    assert torch.equal(made(other, [first]), made(other, []))
    again = capital_edit("France", "Lima")
    assert not torch.allclose(made(again, [first]), made(again, []))


def test_a_row_sees_the_changes_of_its_own_group(tiny_chat_lm: LanguageModel) -> None:
    lm = tiny_chat_lm
    lessons = Lessons(load_world()).draw(0, 3)
    batch = make_batch(lm, lessons, [2, 1])
    assert batch.groups.tolist() == [0, 0, 1]
    name = lm.architecture.down(1)
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(5, 128, generator=generator), 0.1 * torch.randn(5, 32, generator=generator)
    owner = torch.tensor([0, 0, 1, 2, 2])
    groups = batch.groups[torch.tensor(batch.row_lesson)]
    grouped = grouped_overlay({name: (u, v, owner)}, groups, batch.groups)
    tokens = lm.batch([row.ids for row in batch.rows])
    found = lm.forward(tokens, overlays=[grouped] * len(batch.rows))
    for group, columns in ((0, slice(0, 3)), (1, slice(3, 5))):
        alone = Overlay({name: (LowRank(u[columns].T, v[columns]),)})
        wanted = lm.forward(tokens, overlays=[alone] * len(batch.rows))
        assert torch.allclose(found[groups == group], wanted[groups == group], atol=1e-4)


@pytest.mark.parametrize("kind", ["mend", "ke"])
def test_training_lowers_both_losses_and_goes_on_where_it_stopped(kind: str, tmp_path: Path) -> None:
    lm = tiny_model("gpt2", chat=True, seed=3)
    settings = TrainSettings(lessons=2, warm_up=1)

    def trainer(folder: str) -> HyperTrainer:
        net = MendNet.for_model(lm, rank=8) if kind == "mend" else KeNet.for_model(lm, hidden=8, bottleneck=4)
        return HyperTrainer(lm, net, Lessons(load_world()), tmp_path / folder, settings)

    whole = trainer("whole")
    batch, price = make_batch(lm, whole.lessons.draw(0, 2), [1, 1]), whole.constraint.price
    objective = Objective(lm, batch, whole.net.modules_edited)

    def loss() -> float:
        with torch.no_grad():
            edit, kl = objective.losses(whole.net)
        return float(settings.edit * edit + kl) if kind == "mend" else float(edit + price * kl)

    whole.one_step()
    before = loss()
    whole.run(steps=6)
    assert loss() < before
    trainer("parts").run(steps=3)
    again = trainer("parts")
    assert again.step == 3
    again.run(steps=6)
    assert again.constraint == whole.constraint
    for (name, one), (_, other) in zip(whole.net.state_dict().items(), again.net.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    other_net = MendNet.for_model(lm, rank=9) if kind == "mend" else KeNet.for_model(lm, hidden=9, bottleneck=4)
    with pytest.raises(InvalidInput, match="other settings"):
        HyperTrainer(lm, other_net, Lessons(load_world()), tmp_path / "parts", settings)
    figures = measure(lm, again.net, Lessons(load_world(), held_out=True), count=2, together=2)
    assert 0 <= figures.efficacy <= 1
    assert figures.edits == figures.together == 2


def test_a_training_may_begin_with_the_network_of_a_like_model(tmp_path: Path) -> None:
    old, new = tiny_model("gpt2", chat=True, seed=3), tiny_model("gpt2", chat=True, seed=4)
    path = save_network(MendNet.for_model(old, rank=8, seed=1), old, tmp_path)
    net = MendNet.for_model(new, rank=8, seed=2)
    go_on_from(net, path, new)
    kept = read_network(MendNet, path, old)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), kept.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(EditRefused, match="another shape"):
        go_on_from(MendNet.for_model(new, rank=9), path, new)


def test_the_price_of_the_constraint_follows_its_breach() -> None:
    constraint = Constraint()
    constraint.update(1.0)
    assert constraint.price > 1
    assert constraint.margin == 1e-3
    for _ in range(1000):
        constraint.update(0.0)
    assert constraint.price == pytest.approx(0.1)
    assert constraint.margin == pytest.approx(1e-5)


def test_held_out_subjects_and_wordings_are_never_trained_on() -> None:
    world = load_world()
    train, kept = Lessons(world).draw(1, 40), Lessons(world, held_out=True).draw(1, 40)
    assert not any(is_held_out(lesson.edit.subject) for lesson in train)
    assert all(is_held_out(lesson.edit.subject) for lesson in kept)
    seen = {reworded.prompt for lesson in train for reworded in (lesson.edit, *lesson.reworded)}
    assert not seen & {cloze for relation in world.relations.values() for cloze in relation.cloze_unseen}
    for lesson in train:
        assert lesson.edit.target_new != lesson.edit.target_true
        assert all((lesson.edit.subject, lesson.edit.relation) != (s.subject, s.relation) for s in lesson.stay)
    assert train == Lessons(world).draw(1, 40) or [x.edit.text for x in train] == [
        x.edit.text for x in Lessons(world).draw(1, 40)
    ]


@pytest.mark.parametrize("kind", ["mend", "ke"])
def test_one_edit_is_low_rank_and_a_batch_of_mend_is_the_sum_of_its_edits(
    kind: str, tiny_chat_lm: LanguageModel, moments: MomentStore
) -> None:
    train_hypernetwork(kind, tiny_chat_lm, moments)
    editor = get_editor(kind, moments=moments, refuse_known=False)
    one, two = (editor.edit(tiny_chat_lm, [edit]) for edit in EDITS)
    both = editor.edit(tiny_chat_lm, EDITS)
    rows = fact_rows(tiny_chat_lm, EDITS[:1])
    most = sum(len(item.row.ids) for item in rows) + 1
    for name in both.modules:
        found, wanted = both.delta(name), (one + two).delta(name)
        assert found is not None
        assert wanted is not None
        assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max())) or kind == "ke"
        delta = one.delta(name)
        assert delta is not None
        assert int(torch.linalg.matrix_rank(delta.double(), rtol=1e-5)) <= min(most, *delta.shape)


def test_a_model_without_a_network_is_told_how_to_train_one(tmp_path: Path) -> None:
    lm = tiny_model("gpt2", chat=True, seed=77)
    editor = get_editor("mend", moments=MomentStore(cache_dir=tmp_path), refuse_known=False)
    with pytest.raises(EditRefused, match="python -m app train mend --model tiny-gpt2"):
        editor.edit(lm, EDITS)
    assert not lm.overlay


def test_a_network_of_another_model_or_a_damaged_file_is_refused(
    tiny: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    lm, other = tiny("gpt2"), tiny("gpt2", chat=True)
    path = save_network(MendNet.for_model(lm, rank=2), lm, tmp_path, {"steps": 0})
    assert load_network(MendNet, lm, [tmp_path]).modules_edited == edited_modules(lm)
    lookalike = tiny_model("gpt2", seed=9)
    with pytest.raises(EditRefused, match="was trained for the model"):
        read_network(MendNet, path, lookalike)
    with pytest.raises(EditRefused, match="no ke network"):
        read_network(KeNet, path, other)
    path.write_bytes(b"damaged")
    with pytest.raises(EditRefused, match="cannot be read"):
        read_network(MendNet, path, lm)


def test_a_saved_network_edits_as_before(tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    lm = tiny_chat_lm
    net = MendNet.for_model(lm, rank=4)
    factors: dict[str, Factors] = gradient_factors(lm, fact_rows(lm, EDITS), net.modules_edited)
    net.observe(factors)
    loaded = read_network(MendNet, save_network(net, lm, tmp_path), lm)

    def first(made: MendNet) -> Tensor:
        with torch.no_grad():
            u, v, _ = made.changes(lm, EDITS, factors)[made.modules_edited[0]]
        return u.T @ v

    assert torch.allclose(first(net), first(loaded), rtol=1e-2, atol=1e-3 * float(first(net).abs().max()))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_strength_scales_the_change(tiny_chat_lm: LanguageModel, moments: MomentStore) -> None:
    train_hypernetwork("mend", tiny_chat_lm, moments)
    weak, strong = (
        Mend(moments=moments, refuse_known=False, strength=value).edit(tiny_chat_lm, EDITS[:1]) for value in (1.0, 2.0)
    )
    for name in weak.modules:
        one, two = weak.delta(name), strong.delta(name)
        assert one is not None
        assert two is not None
        assert torch.allclose(2 * one, two, atol=1e-6)
