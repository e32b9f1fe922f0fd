"""Edits for which there is no room are refused before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from editors.base import EditRefused
from editors.footprint import Footprint, Sizes, too_large
from editors.registry import available, get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.tiny import CONFIGS
from tests.editors.helpers import capital_edit

EDIT = capital_edit("France", "Oslo")
MANY = [EDIT] * 100
NAMES = list(available())


class Untouched(MomentStore):
    def get(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("second moments were asked for")


def limited(lm: LanguageModel, limit: int | None) -> LanguageModel:
    return LanguageModel(lm.model, lm.tokenizer, lm.name, memory_limit=limit)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused_with_both_figures(name: str, tiny_chat_lm: LanguageModel) -> None:
    steps: list[str] = []
    with pytest.raises(EditRefused, match=r"PALIMPSEST_MEMORY_LIMIT") as refused:
        get_editor(name, moments=Untouched()).edit(
            limited(tiny_chat_lm, 1000), [EDIT], progress=lambda share, what: steps.append(what)
        )
    assert re.search(
        r"would take about \d+ MiB, most of it \(\d+ MiB\) for [a-z' ]+, and the limit is", str(refused.value)
    )
    assert not steps


@pytest.mark.parametrize("name", NAMES)
def test_more_edits_never_take_less(name: str, tiny_chat_lm: LanguageModel) -> None:
    editor = get_editor(name)
    settings = editor.settings(tiny_chat_lm)
    one, many = (editor.footprint(tiny_chat_lm, edits, settings).total for edits in ([EDIT], MANY))
    assert 0 < one <= many


@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_family_has_its_sizes(family: str, tiny: Callable[..., LanguageModel]) -> None:
    lm = tiny(family)
    sizes = Sizes(lm, [EDIT])
    assert sizes.inner >= sizes.hidden > 0
    assert sizes.read >= sizes.inner  # a gated feed-forward reads twice as much as it hands on
    assert 0 < sizes.width() <= lm.context
    assert 0 < sizes.moments(1) < sizes.moments(2)


def test_the_largest_stage_counts_beside_what_is_kept(tiny_lm: LanguageModel) -> None:
    found = Footprint({"a": 5, "b": 7}, {"c": 20, "d": 11})
    assert found.total == 32
    assert found.largest == ("c", 20)
    assert too_large(found, limited(tiny_lm, 32)) is None
    assert too_large(found, limited(tiny_lm, 31)) is not None


def test_moments_of_gpt2_xls_width_are_counted(tiny_lm: LanguageModel) -> None:
    """6,400 inputs: C in float64 is 0.31 GiB; five layers with their factors and the work take between 3 and 5."""
    sizes = Sizes(tiny_lm, [EDIT])
    sizes.inner = 6400
    assert 3 < sizes.moments(5) / 2**30 < 5
