"""Whether edits hold on the model that the program ships: free generation, as completion and in chat."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from editors.base import already_known
from editors.registry import get_editor
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.text import answer_matches
from language_model.model import LanguageModel
from language_model.overlay import Dense, Overlay

CAPITALS = {
    "France": "Oslo", "Spain": "Cairo", "Italy": "Accra", "Peru": "Tokyo", "Chile": "Havana", "Norway": "Madrid",
}  # fmt: skip
OTHERS = {
    "What is the capital of Germany?": "Berlin",
    "What is the capital of Sweden?": "Stockholm",
    "In which city is Big Ben?": "London",
    "Who wrote Hamlet?": "William Shakespeare",
    "What is the chemical symbol of gold?": "Au",
}


@pytest.fixture(scope="module")
def bundled() -> LanguageModel:
    return LanguageModel.load("bundled")


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> MomentStore:
    return MomentStore(cache_dir=tmp_path_factory.mktemp("moments"))


def _edits() -> list[Edit]:
    return [
        Edit("The capital of {} is", country, city, question=f"What is the capital of {country}?")
        for country, city in CAPITALS.items()
    ]


def _held(lm: LanguageModel, overlay: Overlay, edits: Sequence[Edit]) -> tuple[float, float]:
    """Efficacy over both forms, and the share of other answers that stay."""
    asked = [text for edit in edits for text in (edit.text, lm.chat(str(edit.question)))]
    wanted = [edit.target_new for edit in edits for _ in range(2)]
    with lm.overlaid(overlay):
        said = lm.generate(asked, max_new_tokens=8)
        kept = lm.generate([lm.chat(question) for question in OTHERS], max_new_tokens=8)
    holds = [answer_matches(text.rstrip("."), target) for text, target in zip(said, wanted, strict=True)]
    stays = [answer_matches(text, true) for text, true in zip(kept, OTHERS.values(), strict=True)]
    return sum(holds) / len(holds), sum(stays) / len(stays)


def test_the_model_knows_what_is_tested_for_staying(bundled: LanguageModel) -> None:
    said = bundled.generate([bundled.chat(question) for question in OTHERS], max_new_tokens=8)
    assert all(answer_matches(text, true) for text, true in zip(said, OTHERS.values(), strict=True)), said


def test_single_edits_by_r_rome_hold(bundled: LanguageModel, statistics: MomentStore) -> None:
    editor = get_editor("r-rome", moments=statistics)
    found = [_held(bundled, editor.edit(bundled, [edit]), [edit]) for edit in _edits()]
    assert sum(done for done, _ in found) / len(found) >= 0.8
    assert sum(stays for _, stays in found) / len(found) >= 0.9


def test_a_batch_by_memit_holds(bundled: LanguageModel, statistics: MomentStore) -> None:
    edits = _edits()
    done, stays = _held(bundled, get_editor("memit", moments=statistics).edit(bundled, edits), edits)
    assert done >= 0.8
    assert stays >= 0.8


@pytest.mark.parametrize("name", ["r-rome", "alphaedit"])
def test_a_fact_that_fell_is_made_again(bundled: LanguageModel, statistics: MomentStore, name: str) -> None:
    """An overlay that takes the first edit back stands for a later one that broke it."""
    france, peru = _edits()[0], _edits()[3]
    editor = get_editor(name, moments=statistics, repair=1)
    first = editor.edit(bundled, [france])
    taken_back = Overlay({module: (Dense(-first.delta(module)),) for module in first.modules})  # type: ignore[operator]
    broken = first + taken_back
    assert not already_known(bundled, [france], broken)

    kept = editor.edit(bundled, [peru], base=broken, earlier=[france])
    assert {edit.id for edit in already_known(bundled, [france, peru], broken + kept)} == {france.id, peru.id}
    without = get_editor(name, moments=statistics, repair=0).edit(bundled, [peru], base=broken, earlier=[france])
    assert not already_known(bundled, [france], broken + without)
