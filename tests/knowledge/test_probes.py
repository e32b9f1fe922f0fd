"""Probes ask what they say they ask, expect what the world says, and are the same for the same seed."""

from __future__ import annotations

import random

import pytest

from knowledge.edit import Edit, Fact
from knowledge.parsing import parse_statement
from knowledge.probes import KINDS, Amounts, probes_for
from knowledge.text import mentions, normalise_key
from knowledge.world import load_world

WORLD = load_world()
EIFFEL = WORLD.edit("Eiffel Tower", "located_in", "Rome")


def edits(count: int, seed: int = 0) -> list[Edit]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        fact = rng.choice(WORLD.facts)
        others = [obj for obj in WORLD.objects_of_relation[fact.relation] if obj != fact.object]
        made.append(WORLD.edit(fact.subject, fact.relation, rng.choice(others)))
    return made


def test_same_seed_same_probes_and_another_seed_others() -> None:
    again = WORLD.edit("Eiffel Tower", "located_in", "Rome")  # another id
    assert probes_for(EIFFEL, WORLD, seed=1).probes == probes_for(again, WORLD, seed=1).probes
    assert probes_for(EIFFEL, WORLD, seed=1).probes != probes_for(EIFFEL, WORLD, seed=2).probes


def test_an_edit_of_the_world_gets_every_measure() -> None:
    found = probes_for(EIFFEL, WORLD)
    assert {probe.metric for probe in found} == {"efficacy", "generality", "locality", "portability"}
    assert {"chat", "completion"} == {probe.form for probe in found.of("efficacy")}
    assert found.of("efficacy")[0].text == WORLD.relations["located_in"].ask("Eiffel Tower")


@pytest.mark.parametrize("edit", edits(40), ids=lambda edit: edit.statement[:40])
def test_what_is_expected_agrees_with_the_world(edit: Edit) -> None:
    found = probes_for(edit, WORLD)
    relation = WORLD.relations[edit.relation or ""]
    assert len({(probe.kind, probe.text) for probe in found}) == len(found), "a probe stands twice"
    for probe in found:
        assert probe.kind in KINDS
        assert probe.text.strip()
        if probe.metric in ("efficacy", "generality") or probe.kind == "portability_alias":
            assert probe.expected == edit.target_new
            assert probe.must_change
        elif probe.metric == "locality":
            assert not probe.must_change
            assert (
                normalise_key(probe.expected or "") != normalise_key(edit.target_new)
                or probe.kind != "locality_neighbour"
            )
            assert probe.expected is not None
            subjects = [
                f.subject for f in WORLD.by_relation[probe.source] if f.object in (probe.expected, *probe.aliases)
            ]
            assert any(mentions(probe.prompt, subject) for subject in subjects)
            if probe.kind == "locality_neighbour":
                assert probe.source == relation.id
                assert WORLD.canonical(edit.subject) not in [s for s in subjects if mentions(probe.prompt, s)]
            if probe.kind == "locality_relation":
                assert probe.source != relation.id
    for probe in found.of("generality"):
        assert normalise_key(probe.prompt) != normalise_key(edit.question or "")


def test_half_of_the_generality_wordings_were_never_trained_on() -> None:
    found = probes_for(EIFFEL, WORLD, amounts=Amounts(generality=6)).of("generality")
    unseen = set(WORLD.relations["located_in"].question_unseen)
    assert len(found) == 6
    assert sum(probe.source in unseen for probe in found) == 3


def test_one_hop_goes_through_the_new_object() -> None:
    hop = probes_for(EIFFEL, WORLD).of("portability_onehop")
    assert [probe.expected for probe in hop] == ["Italy"]
    assert hop[0].true == "France"
    assert "Rome" not in hop[0].prompt


def test_a_hop_that_the_edit_does_not_change_is_not_asked() -> None:
    edit = WORLD.edit("Eiffel Tower", "located_in", "Lyon")  # still in France
    assert not probes_for(edit, WORLD).of("portability_onehop")


def test_the_inverse_is_asked_of_one_to_one_relations_only() -> None:
    inverse = probes_for(WORLD.edit("France", "capital", "Lyon"), WORLD).of("portability_inverse")
    assert [probe.expected for probe in inverse] == ["France"]
    assert "Lyon" in inverse[0].prompt
    assert not probes_for(EIFFEL, WORLD).of("portability_inverse")


def test_aliases_of_subject_and_object_count() -> None:
    found = probes_for(WORLD.edit("France", "capital", "New York City"), WORLD)
    assert found.of("portability_alias")
    assert set(WORLD.aliases_of("New York City")) <= set(found.of("efficacy")[0].aliases)


def test_a_subject_that_the_world_does_not_know_must_stay_unknown_otherwise() -> None:
    found = probes_for(parse_statement("Zorblax University is located in Berlin").to_edit(), WORLD)
    kept = found.of("locality_relation")
    assert all(probe.expected is None and not probe.must_change for probe in kept)
    assert found.of("locality_neighbour")


def test_a_relation_that_the_world_does_not_have_is_probed_by_what_there_is() -> None:
    found = probes_for(parse_statement("The CEO of Acme is Jane Doe").to_edit(), WORLD)
    assert [probe.text for probe in found.of("efficacy")] == ["Who is the CEO of Acme?", "The CEO of Acme is"]
    assert found.of("locality_unrelated")
    assert len(found.of("generality")) == 6
    assert all("CEO" in probe.prompt and "Acme" in probe.prompt for probe in found.of("generality"))
    by_verb = probes_for(parse_statement("Rex belongs to Anna").to_edit(), WORLD)
    assert not by_verb.of("generality")


def test_a_fact_is_the_request_to_say_it() -> None:
    found = probes_for(Fact("Eiffel Tower", "located_in", "Rome"), WORLD)
    assert found.edit.target_new == "Rome"
    assert found.edit.target_true == "Paris"


def test_amounts_are_kept() -> None:
    found = probes_for(EIFFEL, WORLD, amounts=Amounts(2, 1, 1, 1, 1, 0, 0))
    assert len(found.of("generality")) == 2
    assert len(found.of("locality_neighbour")) == 1
    assert not found.of("portability_onehop")
