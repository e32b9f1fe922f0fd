"""The bundled model's corpus, tokenizer and training."""

from __future__ import annotations

import random
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from knowledge.errors import InvalidInput
from knowledge.world import World, load_world, roundabout
from language_model.bundled import context, copying, names, recall, tokenizer, train
from language_model.bundled.averaging import average
from language_model.bundled.corpus import MIX, Corpus
from language_model.bundled.draw import Draw
from language_model.bundled.report import unseen_names
from language_model.bundled.rows import UNMARKED
from language_model.model import LanguageModel


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def _draw(world: World, seed: int = 0, *, unseen: bool = False) -> Draw:
    return Draw(world, random.Random(seed), unseen=unseen)


def test_the_same_seed_gives_the_same_corpus(world: World) -> None:
    first, second, other = (list(islice(Corpus(world, seed), 40)) for seed in (5, 5, 6))
    assert first == second
    assert first != other


@pytest.mark.parametrize("skill", [skill for skill, _, _ in MIX], ids=lambda skill: skill.__name__)
def test_every_skill_gives_an_answer_and_keeps_to_the_training_wordings(skill, world: World) -> None:
    held_out = [
        wording.split("{}")
        for relation in world.relations.values()
        for wording in (*relation.question_unseen, *relation.cloze_unseen)
    ]
    longest = [max(parts, key=len).strip(" ?.").lower() for parts in held_out]
    telling = {part for part in longest if len(part) > 24 and part[0].isalnum()}  # ": name the" follows "Question" too
    assert len(telling) > 100
    draw = _draw(world, 11)
    for _ in range(60):
        example = skill(draw)
        assert example.answer.strip()
        text = "\n".join((*(m["content"] for m in example.messages), example.text)).lower()
        assert not [part for part in telling if part in text]


def test_roundabout_wordings_name_known_relations_once_and_none_is_held_out(world: World) -> None:
    anywhere = {text for known in world.relations.values() for text in (*known.question_unseen, *known.cloze_unseen)}
    for relation, kinds in roundabout().items():
        known = world.relations[relation]
        held_out = {*known.question_unseen, *known.cloze_unseen}
        for wording in (*kinds["question"], *kinds["cloze"], *kinds["asked"]):
            assert wording.count("{}") == 1
            assert wording not in held_out
        assert not anywhere & set(kinds["asked"])


def test_names_of_the_report_are_not_among_those_that_training_invents() -> None:
    rng = random.Random(1)
    invented = {names.invent(kind, rng) for kind in ("person", "city", "book", "company", "word") for _ in range(3000)}
    assert not invented & set(unseen_names())


def test_override_and_retain_do_what_they_say(world: World) -> None:
    draw = _draw(world, 3)
    real = {fact.object for facts in world.by_relation.values() for fact in facts}
    for _ in range(100):
        told = context.override(draw, 3)
        known = draw.world.aliases_of(told.answer)
        assert any(name.lower() in told.messages[-1]["content"].lower() for name in (told.answer, *known))
        assert context.retain(draw, "relation", 2).answer in real


def test_a_session_counts_every_turn_of_the_assistant(world: World) -> None:
    draw = _draw(world, 4)
    for _ in range(50):
        example = context.session(draw)
        pieces = tokenizer.pieces(example)
        counted = [text for text, counts in pieces if counts]
        replies = [m["content"] for m in example.messages if m["role"] == "assistant"]
        assert counted == [f" {reply}{tokenizer.END}" for reply in (*replies, example.answer)]
        prompt, answer = tokenizer.prompt_and_answer(example)
        assert "".join(text for text, _ in pieces).replace("> ", ">") == (prompt + answer).replace("> ", ">")


def test_what_is_copied_was_said_before(world: World) -> None:
    draw = _draw(world, 5)
    for _ in range(50):
        repeated = copying.repeat(draw)
        assert repeated.answer.strip() == repeated.text.strip()
        found = copying.look_up(draw)
        told, asked = found.text.strip().removesuffix("."), found.answer.removesuffix(".")
        assert sorted(asked.split("; ")) == sorted(told.split("; "))


def test_the_chat_template_and_the_corpus_write_the_same_prompt(world: World) -> None:
    built = PreTrainedTokenizerFast.from_pretrained(str(train.WEIGHTS))
    for example in islice(Corpus(world, 9), 60):
        if example.messages:
            templated = built.apply_chat_template(list(example.messages), tokenize=False, add_generation_prompt=True)
            assert templated == tokenizer.render(example.messages)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    preset = train.Preset(
        2, 32, 2, 4096, tokens=6000, step_tokens=600, micro_tokens=600, learning_rate=1e-3, matrix_rate=1e-3
    )
    monkeypatch.setitem(train.PRESETS, "tiny", preset)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # training one takes longer than the rest
        shutil.copy(train.WEIGHTS / name, tmp_path / name)


def test_training_goes_on_where_it_was_interrupted(tiny: None, tmp_path: Path) -> None:
    first = train.Trainer(tmp_path, "tiny", compiled=False)

    batches = first._batches()
    losses = [first._step(batches) for _ in range(4)]
    assert torch.isfinite(torch.tensor(losses)).all()
    first.save()
    second = train.Trainer(tmp_path, "tiny", compiled=False)
    assert (second.step, second.tokens) == (first.step, first.tokens) != (0, 0)
    for mine, theirs in zip(first.master, second.master, strict=True):
        assert torch.equal(mine, theirs)
        before, after = first._state(mine), second._state(theirs)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    second.run()
    assert second.progress == 1.0
    assert (tmp_path / "log.jsonl").read_text().count("held_out") == 1
    model = LanguageModel.load(str(tmp_path / "model"))
    assert isinstance(model.generate(["The capital of France is"], max_new_tokens=3)[0], str)


def test_a_training_of_an_earlier_version_is_refused_with_the_way_on(tiny: None, tmp_path: Path) -> None:
    train.Trainer(tmp_path, "tiny", compiled=False).save()
    checkpoint = tmp_path / "checkpoint.safetensors"
    saved = load_file(checkpoint)
    last = max(int(name.rpartition(".")[2]) for name in saved)
    save_file({name: tensor for name, tensor in saved.items() if not name.endswith(f".{last}")}, checkpoint)
    with pytest.raises(InvalidInput, match="--start-from"):
        train.Trainer(tmp_path, "tiny", compiled=False)


def test_an_unknown_preset_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cpu"):
        train.Trainer(tmp_path, "huge")


def test_every_stated_fact_is_judged_where_it_tells_whether_it_applies(tiny: None, tmp_path: Path) -> None:
    trainer = train.Trainer(tmp_path, "tiny", compiled=False)
    draw = _draw(load_world(), 3)
    makers = (context.override, context.retain, context.session, context.one_hop)
    examples = [maker(draw) for maker in makers for _ in range(25)]
    judged = 0
    for example in examples:
        for row in trainer.maker.rows([example]):
            marked = [number for number, mark in enumerate(row.applies) if mark != UNMARKED]
            text = trainer.tokenizer.decode([row.ids[number] for number in marked])
            ends = [fact.text[fact.tells_from :] for fact in example.facts]
            assert text.split() == "\n".join(ends).split()
            assert any(row.applies[number] for number in marked) == any(fact.applies for fact in example.facts)
            judged += len(ends)
    assert judged > 100


def test_questions_and_stated_facts_carry_the_number_of_their_relation(tiny: None, tmp_path: Path) -> None:
    trainer = train.Trainer(tmp_path, "tiny", compiled=False)
    draw = _draw(load_world(), 4)
    makers = (recall.chat_question, recall.completion, recall.unknown, context.override, context.retain)
    makers = (*makers, context.session, context.compare)
    seen = 0
    for example in [maker(draw) for maker in makers for _ in range(20)]:
        for row in trainer.maker.rows([example]):
            for number, relation in enumerate(row.relates):
                if relation == UNMARKED:
                    continue
                said = trainer.tokenizer.decode(row.ids[: number + 1])
                if "\ufffd" in said[-3:]:  # in the middle of a character
                    continue
                told = {of for text, of in example.asked if said.endswith(text)}
                line = said.rstrip("\n").rpartition("New fact: ")[2]
                if line and "\n" not in line:  # inside a stated fact
                    told |= {fact.relation for fact in example.facts if fact.text.startswith(line)}
                assert relation in {trainer.maker.numbers[of] for of in told}, said
                seen += 1
    assert seen > 200


def test_the_mean_of_two_models(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 4.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((2,), value, dtype=torch.bfloat16)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "tokenizer.json").write_text("{}")
    out = average({tmp_path / "a": 1.0, tmp_path / "b": 3.0}, tmp_path / "mean")
    mean = load_file(out / "model.safetensors")["w"]
    assert mean.dtype == torch.bfloat16
    assert mean.tolist() == [3.25, 3.25]
    assert (out / "tokenizer.json").read_text() == "{}"


def test_models_that_have_no_mean(tmp_path: Path) -> None:
    for name, size in (("a", 2), ("b", 3), ("c", 2)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.zeros(size)}, tmp_path / name / "model.safetensors")
    (tmp_path / "c" / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInput, match="two models or more"):
        average({tmp_path / "a": 1.0}, tmp_path / "mean")
    with pytest.raises(InvalidInput, match="other parts or shapes"):
        average({tmp_path / "a": 1.0, tmp_path / "b": 1.0}, tmp_path / "mean")
    with pytest.raises(InvalidInput, match="another tokenizer"):
        average({tmp_path / "a": 1.0, tmp_path / "c": 1.0}, tmp_path / "mean")
    with pytest.raises(InvalidInput, match="There is no model"):
        average({tmp_path / "nowhere": 1.0, tmp_path / "a": 1.0}, tmp_path / "mean")
