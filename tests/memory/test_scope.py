"""The scope head's parts: how a question is held against the bank of wordings, and what it is trained on."""

from __future__ import annotations

import numpy as np
import pytest

from memory.calibration import HARDEST, Question, choose
from memory.scope import Pair, kind_logit
from memory.scope_features import FEATURES, Bank, Meaning, features, softmax
from memory.scope_training import train
from memory.vocabulary import Sense, Vocabulary
from tests.memory.fakes import HashEmbedder


def bank(rows: list[list[float]], group: list[int], groups: int = 3) -> Bank:
    vectors = np.array(rows, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    everything, same = np.ones((groups, groups), dtype=bool), np.eye(groups, dtype=bool)
    line = np.eye(vectors.shape[1], groups, dtype=np.float32)
    return Bank(vectors, np.array(group), line, everything, same, everything)


def test_a_vector_is_compared_with_each_groups_own_wordings() -> None:
    rows = [[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    given = bank(rows, [1, 0, 1, 0])  # not in the order of the groups, and group 2 without any
    asked = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    nearest, density = given.compare(asked)
    np.testing.assert_allclose(nearest, [[0, 1, -1], [1, 2**-0.5, -1], [0, 1, -1]], atol=1e-6)
    assert density[0].argmax() == 1
    assert density[1].argmax() == 0
    assert density[0, 2] < -29


def test_several_wordings_around_a_question_count_more_than_one() -> None:
    near, far = [1.0, 0.3, 0.0], [0.0, 0.0, 1.0]
    given = bank([near, near, near, [1.0, -0.3, 0.0], far, far], [0, 0, 0, 1, 1, 1])
    nearest, density = given.compare(np.array([[1, 0, 0]], dtype=np.float32))
    assert abs(nearest[0, 0] - nearest[0, 1]) < 1e-6
    assert density[0, 0] > density[0, 1] + 0.5


def test_features_are_finite_and_one_row_a_pair() -> None:
    given = bank([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 1, 2])
    same = np.eye(3, dtype=np.float32)
    found = features(given, same, same, same, Meaning.of(given, same, same, np.array([0, 1, -1])))
    assert found.shape == (3, len(FEATURES))
    assert np.isfinite(found).all()


def test_probabilities_are_shared_among_the_allowed() -> None:
    found = softmax(np.zeros((1, 3), dtype=np.float32), np.array([[True, False, True]]))
    np.testing.assert_allclose(found, [[0.5, 0.0, 0.5]])


def sense(name: str, *words: str) -> Sense:
    clozes = tuple(f"The {word} of {{}} is" for word in words)
    asks = tuple(f"What is the {word} of {{}}?" for word in words)
    return Sense(name, name, frozenset({"place"}), clozes, asks, ("the " + words[0] + " of {}",), subject_type="city")


def test_further_wordings_are_for_questions_only() -> None:
    plain = Vocabulary((sense("capital", "capital", "seat"), sense("mayor", "mayor", "head")), frozenset())
    asked = ["Where do the ministers of {} sit?", "What is the capital of {}?"]
    more = {"capital": {"question": asked, "noun": ["x {}"]}}
    found = plain.extended(more).senses
    assert found[0].more == ("Where do the ministers of {} sit?", "What is x {}?")  # what it had already is left out
    assert (found[0].cloze, found[0].question, found[0].noun) == (
        plain.senses[0].cloze, plain.senses[0].question, plain.senses[0].noun,
    )  # fmt: skip
    assert found[1] == plain.senses[1]


def test_training_learns_wordings_that_only_questions_have() -> None:
    words = "capital seat, mayor head, river stream, founder father, airport field, bridge span, church dome, team club"
    senses = tuple(sense(pair.split()[0], *pair.split()) for pair in words.split(", "))
    asked = ["In what place do ministers of {} gather?", "Ministers of {} meet in", "Where do ministers of {} gather?"]
    vocabulary = Vocabulary(senses, frozenset()).extended({"capital": {"question": asked}})
    head = train(vocabulary, HashEmbedder(), seed=0)
    assert head.bank.present.sum() == 8
    own = head.bank.compare(head.embedder.encode(["Where do ministers of it gather?"]))[0][0]
    assert own.argmax() == head.groups["capital"]
    assert own.max() > 0.99


def test_the_hardest_negatives_have_a_limit_of_their_own() -> None:
    questions = [Question(str(at), "in scope", at) for at in range(100)]
    questions += [Question(str(at), "unrelated") for at in range(900)]
    questions += [Question(str(at), HARDEST) for at in range(100)]
    scores = [0.9] * 100 + [0.1] * 900 + [0.5] * 10 + [0.2] * 90  # 10 of 1,000 in all, but 10 of 100 of that kind
    found = choose(questions, scores, 0.01)
    assert found.by_kind[HARDEST]["rate"] <= 0.03
    assert 0.5 < found.threshold < 0.51  # no higher than it takes
    assert found.true_positive_rate == 1


@pytest.mark.parametrize(
    ("query", "object", "clash"),
    [
        ("Who founded Tesla?", "1890", True),
        ("whom did it belong to?", "5 March 1890", True),
        ("Who is on first?", "42%", True),
        ("Who sings it?", "Blink 182", False),
        ("Who sings it?", "U2", False),
        ("Who sings it?", "311", False),
        ("Who wrote it?", "Mark 2", False),
        ("Whom should I call?", "555-0192", False),
        ("When was Tesla founded?", "1890", False),
        ("Who founded Tesla?", "Rome", False),
    ],
)
def test_nobody_is_a_number(query: str, object: str, clash: bool) -> None:
    assert (kind_logit(Pair(query, "it", object, "")) < 0) == clash
