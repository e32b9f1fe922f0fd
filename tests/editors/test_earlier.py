"""Sequences: which of the earlier facts are to be left alone."""

from __future__ import annotations

from dataclasses import replace

from editors.base import Job
from editors.earlier import standing
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from tests.editors.helpers import capital_edit

FRANCE, PERU = capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")


def job_of(lm: LanguageModel, edits: list[Edit], base: Overlay, earlier: list[Edit]) -> Job:
    return Job(lm, edits, base, earlier, lambda share, what: None)


def test_only_the_last_word_on_a_fact_stands(trained: LanguageModel) -> None:
    again = capital_edit("France", "Rome")
    job = job_of(trained, [capital_edit("Egypt", "Oslo")], Overlay.empty(), [FRANCE, PERU, again])
    assert standing(job) == [again, PERU]
    assert standing(replace(job, edits=[capital_edit("Peru", "Oslo")])) == [again]
