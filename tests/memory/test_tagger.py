"""The tagger of multi-hop questions, and what it adds to the evidence of stems."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from knowledge.errors import InvalidInput
from knowledge.world import load_world, roundabout
from language_model.bundled.draw import wordings
from memory.embedder import Embedder
from memory.errors import IndexFileError
from memory.evidence import Evidence
from memory.mentions import Span
from memory.questions import Reading, Start
from memory.relation_words import RelationWords, words
from memory.scope import FILLER
from memory.tagger import RelationTagger
from memory.tagger_training import Questions, train
from memory.vocabulary import bundled
from tests.memory.fakes import HashEmbedder


@pytest.fixture(scope="module")
def questions() -> Questions:
    return Questions(
        bundled(), load_world(), roundabout(), wordings("composites"), wordings("frames"), random.Random(3)
    )


def _loudest(tagger: RelationTagger, text: str, word: str) -> str:
    at = text.index(word)
    return tagger.groups[int(tagger.read(text, [(at, at + len(word))]).shares[:, 0].argmax())]


def test_drawn_questions_nest_around_the_masked_entity(questions: Questions) -> None:
    for _ in range(200):
        chain = questions.chain()
        pieces = questions.question(chain)
        groups = {questions.groups.index(sense.group) for sense in chain}
        said = {number for piece in pieces for number in piece.relations} - {len(questions.groups)}
        assert said <= groups
        assert [piece.text for piece in pieces if not piece.relations and piece.text == FILLER] == [FILLER]
        asked = {number for piece in pieces if piece.asked for number in piece.relations}
        assert asked == {questions.groups.index(chain[-1].group)}


def test_the_shipped_tagger_reads_words_in_their_context(minilm: Embedder) -> None:
    tagger = RelationTagger.shipped(minilm)
    assert tagger is not None
    assert (
        _loudest(tagger, "What is the calling code of the country where it was founded?", "calling") == "calling_code"
    )
    text = "What is the capital of the country where the author of it was born?"
    tagged = tagger.read(
        text, [(text.index(word), text.index(word) + len(word)) for word in ("capital", "author", "born")]
    )
    assert tagged.asked[0] > 0.5 > max(tagged.asked[1:])
    assert tagged.shares.shape == (len(tagger.groups), 3)
    assert (tagged.shares.sum(0) <= 1 + 1e-5).all()


def test_a_tagger_learns_and_comes_back_as_it_was(questions: Questions, minilm: Embedder, tmp_path: Path) -> None:
    tagger = train(questions, minilm, count=400)
    tagger.save(tmp_path / "tagger.safetensors")
    again = RelationTagger.load(tmp_path / "tagger.safetensors", minilm)
    assert again is not None
    text, spans = "Who is the author of it?", [(11, 17)]
    assert np.allclose(tagger.read(text, spans).shares, again.read(text, spans).shares, atol=1e-2)
    assert RelationTagger.load(tmp_path / "tagger.safetensors", HashEmbedder()) is None
    (tmp_path / "tagger.safetensors").write_bytes(b"nothing")
    with pytest.raises(IndexFileError, match="train chains"):
        RelationTagger.load(tmp_path / "tagger.safetensors", minilm)


def test_an_encoder_without_token_states_is_told(questions: Questions) -> None:
    with pytest.raises(InvalidInput, match="states of single tokens"):
        train(questions, HashEmbedder(), count=3)


def _read(question: str, name: str) -> Reading:
    """A question whose words all stand before the entity."""
    at = question.index(name)
    kept = [word for word in words(question) if word.end <= at]
    start = Start(name.lower(), name, Span(at, at + len(name), 1.0), True)
    return Reading(question, start, tuple(kept), tuple(range(len(kept))), ())


def test_a_facts_own_words_speak_for_it_whatever_the_tagger_takes_them_for(minilm: Embedder) -> None:
    table, reading = RelationWords.bundled(), _read("Who is the gonfalonier of Ada?", "Ada")
    at = reading.stems.index("gonfa")
    assert not table.knows("gonfa")
    own = ["The gonfalonier of it is"]
    weights = table.group_weights(own)
    alone = table.fact_ratios(reading.stems, weights, own)[at]
    assert alone > 3
    assert Evidence(table, reading, RelationTagger.shipped(minilm)).fact_ratios(weights, own)[at] >= alone


def test_without_a_tagger_the_stems_speak_alone(minilm: Embedder) -> None:
    table, reading = RelationWords.bundled(), _read("Who is the spouse of Ada?", "Ada")
    assert np.array_equal(Evidence(table, reading, None).log_ratios(), table.log_ratios(reading.stems))
    heard = Evidence(table, reading, RelationTagger.shipped(minilm)).log_ratios()
    assert table.groups[int(heard[:, -2].argmax())] == "spouse"
