"""Sequences: earlier facts are left alone, and those that fell are made again."""

from __future__ import annotations

from dataclasses import replace

from editors.base import Job, already_known
from editors.earlier import repaired, standing
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from tests.editors.helpers import capital_edit, facts

FRANCE, PERU = capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")


def job_of(lm: LanguageModel, edits: list[Edit], base: Overlay, earlier: list[Edit]) -> Job:
    return Job(lm, edits, base, earlier, lambda share, what: None)


def test_only_the_last_word_on_a_fact_stands(trained: LanguageModel) -> None:
    again = capital_edit("France", "Rome")
    job = job_of(trained, [capital_edit("Egypt", "Oslo")], Overlay.empty(), [FRANCE, PERU, again])
    assert standing(job) == [again, PERU]
    assert standing(replace(job, edits=[capital_edit("Peru", "Oslo")])) == [again]


def test_earlier_facts_are_asked_now_and_then_only(trained: LanguageModel) -> None:
    """...a model in which most of them have fallen is left as it is, and so is one that making again does not help."""
    made_again: list[list[str]] = []

    def again(job: Job) -> Overlay:
        made_again.append([edit.subject for edit in job.edits])
        return Overlay.empty()

    countries = [(country, city) for country, relation, city in facts() if relation == "capital"]
    earlier = [capital_edit(country, "nowhere") for country, _ in countries[:5]]
    known, unknown = capital_edit(*countries[5]), capital_edit(countries[6][0], "nowhere")
    assert already_known(trained, [known])
    for before, every in ((1, 3), (2, 3), (5, 3)):
        repaired(job_of(trained, [known], Overlay.empty(), earlier[:before]), Overlay.empty(), again, every=every)
    # of one earlier fact two facts make no multiple of three; of two they do, but both have fallen: too many
    assert made_again == []
    few = [capital_edit(*countries[7]), earlier[0]]  # one that holds and one that fell, and three facts in all
    repaired(job_of(trained, [known], Overlay.empty(), few), Overlay.empty(), again, every=3)
    assert made_again.pop() == [earlier[0].subject]
    repaired(job_of(trained, [known, unknown], Overlay.empty(), []), Overlay.empty(), again, every=100)
    assert made_again == [[unknown.subject]]  # an edit of this very call is asked always, and once: nothing came of it
