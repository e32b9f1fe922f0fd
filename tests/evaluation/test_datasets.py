"""Readers of the published formats: on small records of our own making, and on real samples where they are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.datasets import DataSetMissing, available, find, read
from evaluation.datasets.cases import EditCase, slotted
from knowledge.errors import InvalidInput, UnknownName

REWRITE = {
    "prompt": "{} stands in the city of",
    "relation_id": "P131",
    "target_new": {"str": "Rome", "id": "Q220"},
    "target_true": {"str": "Paris", "id": "Q90"},
    "subject": "Eiffel Tower",
}
COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": REWRITE,
    "paraphrase_prompts": ["Tourists flock. Eiffel Tower is in"],
    "neighborhood_prompts": ["The Louvre is in", "Where is the Panthéon?"],
    "attribute_prompts": ["The Colosseum is in"],
    "generation_prompts": ["The Eiffel Tower is"],
}
ZSRE = {
    "subject": "Watts Humphrey",
    "src": "What university did Watts Humphrey attend?",
    "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?",
    "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology"],
    "loc": "nq question: who played desmond doss father in hacksaw ridge",
    "loc_ans": "Hugo Weaving",
    "cond": "Trinity College >> University of Michigan || What university did Watts Humphrey attend?",
}
KNOWEDIT = {
    "subject": "Léo Arnaud",
    "prompt": "What is the birthplace of Léo Arnaud?",
    "target_new": "Tokyo",
    "ground_truth": ["Lyon"],
    "rephrase": "Where was Léo Arnaud born?",
    "portability": {
        "Reasoning": [{"prompt": "In which country was Léo Arnaud born?", "ground_truth": [["Japan", "JP"]]}],
        "Subject_Aliasing": [{"prompt": "The birthplace of Noel Arnaud is", "ground_truth": ["Tokyo"]}],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The gender of Léo Arnaud is", "ground_truth": [["male"], ["man"]]}],
        "Forgetfulness": {"prompt": ["Léo Arnaud worked as"], "ground_truth": [["composer"]]},
    },
}
WIKIBIO = {
    "text": "This is a passage about john reynolds. Sir John Reynolds was",
    "labels": "a physician.",
    "concept": "john reynolds",
    "locality": {"Relation_Specificity": [{"prompt": "The country of John Reynolds is", "ground_truth": ["UK"]}]},
}
SANITATION = {
    "K_F": [{"question": "Who wrote Hamlet?", "target_new": "I don't know", "ground_truth": "Shakespeare"}],
    "K_R": [{"question": "Who wrote Emma?", "ground_truth": ["Jane Austen"]}],
}
RIPPLE = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the country of citizenship of Leonardo DiCaprio is Syria.",
        "subject_id": "Q38111",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "target_id": "Q858",
        "original_fact": {
            "prompt": "The name of the country of citizenship of Leonardo DiCaprio is United States of America.",
        },
    },
    "Relation_Specificity": [
        {"test_queries": [{"prompt": "The mother of Leonardo DiCaprio is", "answers": [{"value": "Irmelin"}]}]}
    ],
    "Logical_Generalization": [],
    "Subject_Aliasing": [
        {"test_queries": [{"prompt": "Leo is a citizen of", "answers": [{"value": "Syria", "aliases": ["SY"]}]}]}
    ],
    "Compositionality_I": [{"test_queries": [{"prompt": "No answer is known to", "answers": []}]}],
    "Compositionality_II": [],
    "Forgetfulness": [],
}  # fmt: skip
MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [REWRITE | {"question": "Where is the Eiffel Tower?"}],
    "questions": ["In which country is the Eiffel Tower?", "b?", "c?"],
    "answer": "France",
    "answer_alias": ["FR"],
    "new_answer": "Italy",
    "new_answer_alias": ["IT"],
    "single_hops": [],
    "new_single_hops": [
        {"question": "Where is the Eiffel Tower?", "cloze": "It is in", "answer": "Rome", "answer_alias": ["Roma"]},
        {"question": "In which country is Rome?", "cloze": "Rome is in", "answer": "Italy", "answer_alias": []},
    ],
}
KNOWN = {
    "known_id": 3,
    "subject": "Vinson Massif",
    "attribute": "Antarctica",
    "template": "{} is located in the continent",
    "prediction": " of Antarctica.",
    "prompt": "Vinson Massif is located in the continent of",
    "relation_id": "P30",
}


def one(tmp_path: Path, name: str, raw: Any) -> EditCase:
    file = tmp_path / "file.json"
    file.write_text(json.dumps(raw), encoding="utf-8")
    cases = read(name, path=file)
    assert len(cases) == 1
    return cases[0]


def kinds(case: EditCase) -> list[tuple[str, str | None, str]]:
    return [(probe.kind, probe.expected, probe.form) for probe in case.probes]


def test_counterfact(tmp_path: Path) -> None:
    case = one(tmp_path, "counterfact", [COUNTERFACT])
    assert case.id == "7"
    assert case.edits[0].text == "Eiffel Tower stands in the city of"
    assert (case.edits[0].target_new, case.edits[0].target_true) == ("Rome", "Paris")
    assert kinds(case) == [
        ("efficacy", "Rome", "completion"),
        ("generality", "Rome", "completion"),
        ("locality_neighbour", "Paris", "completion"),
        ("locality_neighbour", "Paris", "chat"),
    ]
    assert case.openings == ("The Eiffel Tower is",)


def test_zsre(tmp_path: Path) -> None:
    case = one(tmp_path, "zsre", [ZSRE])
    assert case.edits[0].prompt == "What university did {} attend?"
    assert kinds(case)[-1] == ("locality_unrelated", "Hugo Weaving", "chat")
    assert case.probes[-1].prompt == "who played desmond doss father in hacksaw ridge?"
    assert [probe.kind for probe in case.probes] == ["efficacy", "generality", "locality_unrelated"]


def test_knowedit(tmp_path: Path) -> None:
    case = one(tmp_path, "knowedit_counterfact", [KNOWEDIT])
    assert case.edits[0].prompt == "What is the birthplace of {}?"
    assert case.edits[0].target_true == "Lyon"
    assert kinds(case) == [
        ("efficacy", "Tokyo", "chat"),
        ("generality", "Tokyo", "chat"),
        ("portability_onehop", "Japan", "chat"),
        ("portability_alias", "Tokyo", "completion"),
        ("locality_relation", "male", "completion"),
        ("locality_forgetfulness", "composer", "completion"),
    ]
    assert case.probes[2].aliases == ("JP",)


def test_wikibio_and_sanitation(tmp_path: Path) -> None:
    case = one(tmp_path, "knowedit_wikibio", [WIKIBIO])
    assert case.edits[0].prompt.startswith("This is a passage about {}.")
    assert case.edits[0].target_new == "a physician."
    case = one(tmp_path, "knowedit_sanitation", SANITATION)
    assert case.edits[0].text == "Who wrote Hamlet?"
    assert kinds(case) == [("efficacy", "I don't know", "chat"), ("locality_unrelated", "Jane Austen", "chat")]


def test_rippleedits(tmp_path: Path) -> None:
    case = one(tmp_path, "ripple_popular", [RIPPLE])
    edit = case.edits[0]
    assert edit.prompt == "The name of the country of citizenship of {} is"
    assert (edit.subject, edit.target_new, edit.target_true) == (
        "Leonardo DiCaprio",
        "Syria",
        "United States of America",
    )
    assert [kind for kind, *_ in kinds(case)] == ["efficacy", "portability_alias", "locality_relation"]


@pytest.mark.parametrize(
    ("sentence", "subject", "target"),
    [
        ("The name of the award Marie Curie won is Nobel Prize.", "Marie Curie", "Nobel Prize"),
        ("The number of children Queen Victoria has is 9.", "Queen Victoria", "9"),
        ("The name of the sports team which Lionel Messi is a member of is Ajax.", "Lionel Messi", "Ajax"),
        ("The name of the author of Lord of the Flies is Homer.", "Lord of the Flies", "Homer"),
        ("The name of the position held by Angela Merkel is judge.", "Angela Merkel", "judge"),
        ("The name of the currency in Japan is euro.", "Japan", "euro"),
        ("Super Bowl LV is followed by Super Bowl I.", "Super Bowl LV", "Super Bowl I"),
        ("The place of birth of Ada Lovelace is Rome.", "Ada Lovelace", "Rome"),
    ],
)
def test_rippleedits_subjects_are_read_out_of_the_sentence(
    tmp_path: Path, sentence: str, subject: str, target: str
) -> None:
    case = one(tmp_path, "ripple_recent", [{"edit": {"prompt": sentence, "relation": "X", "original_fact": None}}])
    assert (case.edits[0].subject, case.edits[0].target_new) == (subject, target)
    assert case.edits[0].statement == sentence


def test_mquake(tmp_path: Path) -> None:
    case = one(tmp_path, "mquake_cf_3k", [MQUAKE])
    assert case.multihop is not None
    assert len(case.multihop.questions) == 3
    assert (case.multihop.before, case.multihop.after) == ("France", "Italy")
    assert [hop.answer for hop in case.multihop.hops] == ["Rome", "Italy"]
    assert case.edits[0].aliases == ("Roma",)


def test_known(tmp_path: Path) -> None:
    case = one(tmp_path, "known_1000", [KNOWN])
    assert case.edits[0].prompt == "{} is located in the continent of"
    assert case.edits[0].target_new == case.edits[0].target_true == "Antarctica"


@pytest.mark.parametrize("name", list(available()))
def test_an_absent_file_says_where_to_get_it_and_where_to_put_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluation.datasets as module

    monkeypatch.setattr(module, "folders", lambda folder=None: [tmp_path])
    with pytest.raises(DataSetMissing) as caught:
        read(name)
    assert "https://" in str(caught.value)
    assert "PALIMPSEST_DATASETS" in str(caught.value)


def test_files_are_found_in_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counterfact.json").write_text(json.dumps([COUNTERFACT] * 3))
    monkeypatch.setenv("PALIMPSEST_DATASETS", str(tmp_path))
    assert find("counterfact") == tmp_path / "counterfact.json"
    assert len(read("counterfact", limit=2)) == 2


def test_other_formats_and_broken_files_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(json.dumps([COUNTERFACT, {"something": "else"}]))
    with pytest.raises(InvalidInput, match="case 1"):
        read("counterfact", path=file)
    file.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InvalidInput, match="LFS"):
        read("counterfact", path=file)
    with pytest.raises(UnknownName, match="counterfact"):
        read("counterfct")


def test_slots() -> None:
    assert slotted("The capital of France is", "France") == "The capital of {} is"
    assert slotted("A passage about john doe.", "John Doe") == "A passage about {}."
    assert slotted("Anna likes Ann", "Ann") == "Anna likes {}"
    assert slotted("No name here", "Ann") == "{}: No name here"


@pytest.mark.parametrize("name", ["known_1000", "mquake_hard"])
def test_real_samples(name: str) -> None:
    try:
        cases = read(name)
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    assert len(cases) > 100
    for case in cases:
        assert case.probes
        for edit in case.edits:
            assert edit.subject in edit.text
            assert not edit.prompt.startswith("{}:")
        if name == "mquake_hard":
            assert case.multihop is not None
            assert len(case.multihop.questions) == 3
            assert len(case.multihop.hops) == 4
