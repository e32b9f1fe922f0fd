"""Sampled prefixes are kept by model and settings, in memory and beside the second moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors import prefixes
from editors.prefixes import PrefixStore, sample_prefixes
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit, corpus


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fingerprints of the models that were sampled from, in order."""
    found: list[str] = []

    def counted(lm: LanguageModel, **settings: object) -> tuple[str, ...]:
        found.append(lm.fingerprint)
        return sample_prefixes(lm, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(prefixes, "sample_prefixes", counted)
    return found


def test_the_same_is_sampled_once(tiny_chat_lm: LanguageModel, sampled: list[str], tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    first = store.get(tiny_chat_lm, count=4, lengths=(3,), seed=1)
    assert first == sample_prefixes(tiny_chat_lm, count=4, lengths=(3,), seed=1)
    assert store.get(tiny_chat_lm, count=4, lengths=(3,), seed=1) == first
    assert PrefixStore(tmp_path).get(tiny_chat_lm, count=4, lengths=(3,), seed=1) == first  # from the file
    assert len(sampled) == 1
    store.get(tiny_chat_lm, count=4, lengths=(3,), seed=2)
    store.get(tiny_chat_lm, count=4, lengths=(4,), seed=1)
    store.get(tiny_model("gpt2", chat=True, seed=9), count=4, lengths=(3,), seed=1)
    assert len(sampled) == 4
    assert store.get(tiny_chat_lm, count=0) == ("",)
    assert len(sampled) == 4


def test_a_damaged_file_is_sampled_again(tiny_chat_lm: LanguageModel, sampled: list[str], tmp_path: Path) -> None:
    first = PrefixStore(tmp_path).get(tiny_chat_lm, count=2, lengths=(3,))
    (path,) = tmp_path.iterdir()
    for damage in ("[", "{}", '["no empty one"]', '["", 3]'):
        path.write_text(damage)
        assert PrefixStore(tmp_path).get(tiny_chat_lm, count=2, lengths=(3,)) == first
    assert len(sampled) == 5


def test_a_second_edit_samples_nothing(tiny_chat_lm: LanguageModel, sampled: list[str], tmp_path: Path) -> None:
    moments = MomentStore(corpus=corpus(), cache_dir=tmp_path)
    for name in ("r-rome", "rome"):
        editor = get_editor(name, moments=moments, refuse_known=False, prefixes=2)
        editor.edit(tiny_chat_lm, [capital_edit("France", "Oslo")])
        editor.edit(tiny_chat_lm, [capital_edit("Peru", "Cairo")])
    assert len(sampled) == 1
