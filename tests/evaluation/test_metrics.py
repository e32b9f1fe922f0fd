"""The measures against values worked out by hand, and the properties that they must have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics import (
    fluency,
    generation_right,
    harmonic_mean,
    interval,
    ngram_entropy,
    probability_right,
    rate,
    token_accuracy,
)


@dataclass
class Score:
    mean_logprob: float
    argmax_hits: tuple[bool, ...] = ()


def test_generation_wants_the_whole_answer() -> None:
    assert generation_right("The Rome.", "Rome")
    assert generation_right("Roma", "Rome", ["Roma"])
    assert not generation_right("Rome, in Italy", "Rome")
    assert not generation_right("", "Rome")


def test_probability_compares_and_token_accuracy_counts() -> None:
    assert probability_right(Score(-0.5), Score(-0.6))
    assert not probability_right(Score(-0.6), Score(-0.6))
    assert token_accuracy(Score(0, (True, False, True, True))) == 0.75
    assert token_accuracy(Score(0)) == 0


def test_harmonic_mean_of_the_published_figures() -> None:
    assert harmonic_mean([100.0, 96.4, 75.4]) == pytest.approx(89.2, abs=0.05)  # ROME on CounterFact
    assert harmonic_mean([1.0, 0.0, 1.0]) == 0
    assert harmonic_mean([]) == 0


def test_entropy_by_hand() -> None:
    assert ngram_entropy(list("ababa"), 2) == pytest.approx(1.0)  # ab, ba, ab, ba
    assert ngram_entropy(["a"] * 10, 2) == 0
    assert ngram_entropy(["a"], 2) == 0
    distinct = list(range(101))
    expected = 100 * (2 / 3 * math.log2(100) + 4 / 3 * math.log2(99)) / 2
    assert fluency(distinct) == pytest.approx(expected)


def test_repetition_is_less_fluent() -> None:
    assert fluency(list(range(100))) > fluency(list(range(10)) * 10) > fluency([1] * 100) == 0


def test_no_case_no_figure() -> None:
    assert rate([]).value is None
    assert rate([]).n == 0


def test_an_interval_never_pretends_to_certainty() -> None:
    sure = rate([True] * 20)
    assert (sure.value, sure.high, sure.n) == (1.0, 1.0, 20)
    assert sure.low == pytest.approx(0.85)
    one = rate([True])
    assert (one.low, one.high) == (0.0, 1.0)


def test_a_bootstrap_interval_is_about_right() -> None:
    cell = rate([True] * 50 + [False] * 50)
    assert cell.value == 0.5
    assert cell.low == pytest.approx(0.4, abs=0.03)
    assert cell.high == pytest.approx(0.6, abs=0.03)
    assert rate([True] * 50 + [False] * 50) == cell, "the same data give the same interval"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_mean_lies_within_its_interval(values: list[float]) -> None:
    cell = interval(values, resamples=200)
    assert cell.value is not None
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low - 1e-9 <= cell.value <= cell.high + 1e-9
    assert cell.n == len(values)
