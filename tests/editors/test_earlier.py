"""Sequences: earlier facts are left alone, and those that fell are made again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editors.base import Job, already_known
from editors.earlier import repaired, standing
from editors.registry import get_editor
from editors.statistics import MomentStore
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay
from tests.editors.helpers import capital_edit, facts

FRANCE, PERU = capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")


def job_of(lm: LanguageModel, edits: list[Edit], base: Overlay, earlier: list[Edit]) -> Job:
    return Job(lm, edits, base, earlier, lambda share, what: None)


def test_only_the_last_word_on_a_fact_stands(trained: LanguageModel) -> None:
    again = capital_edit("France", "Rome")
    job = job_of(trained, [capital_edit("Egypt", "Oslo")], Overlay.empty(), [FRANCE, PERU, again])
    assert standing(job) == [again, PERU]
    assert standing(replace(job, edits=[capital_edit("Peru", "Oslo")])) == [again]


@pytest.mark.parametrize("name", ["r-rome", "alphaedit"])
def test_a_fact_that_fell_is_made_again(trained: LanguageModel, moments: MomentStore, name: str) -> None:
    """An overlay that undoes the first fact stands for a later edit that broke it."""
    place = {"layer": 1} if name == "r-rome" else {"layers": (1,)}
    editor = get_editor(name, moments=moments, prefixes=2, repair=1, **place)
    first = editor.edit(trained, [FRANCE])
    assert already_known(trained, [FRANCE], first)
    module = trained.architecture.down(1)
    whole = first.delta(module)
    assert whole is not None
    broken = first + Overlay({module: (LowRank(-whole, torch.eye(whole.shape[1])),)})
    assert not already_known(trained, [FRANCE], broken)

    kept = editor.edit(trained, [PERU], base=broken, earlier=[FRANCE])
    assert {edit.id for edit in already_known(trained, [FRANCE, PERU], broken + kept)} == {FRANCE.id, PERU.id}
    without = get_editor(name, moments=moments, prefixes=2, repair=0, **place)
    left = without.edit(trained, [PERU], base=broken, earlier=[FRANCE])
    assert not already_known(trained, [FRANCE], broken + left)


def test_earlier_facts_are_asked_now_and_then_only(trained: LanguageModel) -> None:
    """...and a model in which most of them have fallen is left as it is."""
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
    repaired(job_of(trained, [known, *earlier[1:]], Overlay.empty(), earlier[:1]), Overlay.empty(), again, every=3)
    assert made_again == []  # five of six
    repaired(job_of(trained, [known, unknown], Overlay.empty(), []), Overlay.empty(), again, every=100)
    assert made_again == [[unknown.subject]] * 3  # an edit of this very call is asked always
