"""Edits for which there is no room are refused before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from editors import footprint
from editors.base import EditRefused
from editors.footprint import Footprint, Need, Sizes, too_large
from editors.registry import available, get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.tiny import CONFIGS
from tests.editors.helpers import capital_edit

EDIT = capital_edit("France", "Oslo")
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
        r"would take about \d+ MiB, the largest part of it \(\d+ MiB\) for [a-z' ]+, and the limit is",
        str(refused.value),
    )
    assert not steps


@pytest.mark.parametrize("name", NAMES)
def test_more_edits_take_more(name: str, tiny_chat_lm: LanguageModel) -> None:
    editor = get_editor(name)
    settings = editor.settings(tiny_chat_lm)
    one, many = (editor.footprint(tiny_chat_lm, [EDIT] * count, settings).total for count in (1, 400))
    if name == "kn":  # makes each fact by itself
        assert 0 < one == many
        return
    assert 0 < one < many
    if name in ("ft-l", "ft-m", "lora", "grace", "calinet"):  # hold all rows at once
        assert many > 50 * one


@pytest.mark.parametrize("name", ["alphaedit", "r-rome"])
def test_earlier_facts_that_are_protected_count(name: str, tiny_chat_lm: LanguageModel) -> None:
    editor = get_editor(name, repair=0)
    settings = editor.settings(tiny_chat_lm)
    alone, late = (editor.footprint(tiny_chat_lm, [EDIT], settings, [EDIT] * n).total for n in (0, 1000))
    assert late - alone > 3 * 2000**2 * 8  # a matrix of facts x facts, two forms each


def test_second_moments_that_are_there_are_not_counted_again(tiny_chat_lm: LanguageModel) -> None:
    store = MomentStore(["The capital of France is Paris."] * 30)
    editor = get_editor("memit", moments=store)
    settings = editor.settings(tiny_chat_lm)

    def moments() -> int:
        found = editor.footprint(tiny_chat_lm, [EDIT], settings)
        return next(need.host for need in found.kept if need.what == "second moments")

    before = moments()
    for moment in store.get(tiny_chat_lm, settings.layers).values():
        assert moment.cholesky.shape == moment.matrix.shape
    assert store.resident == 2 * len(settings.layers) * 128**2 * 8
    assert moments() == 0 < before


@pytest.mark.parametrize("family", list(CONFIGS))
def test_gradients_keep_no_more_than_is_estimated(family: str, tiny: Callable[..., LanguageModel]) -> None:
    """Counted where autograd keeps it. Frozen weights are there anyway; a tensor that is kept twice is there once."""
    lm = tiny(family)
    rows, width, hidden = 6, 20, lm.hidden_size
    batch = lm.batch(torch.randint(5, 50, (rows, width), generator=torch.Generator().manual_seed(0)).tolist())
    own = {parameter.untyped_storage().data_ptr() for parameter in (*lm.model.parameters(), *lm.model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def start(value: torch.Tensor) -> torch.Tensor:
        return value + torch.zeros(hidden, requires_grad=True)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trace = lm.trace(batch, change_outputs={lm.architecture.embedding: start}, grad=True)
    logits = trace.logits.numel() * 4
    sizes = Sizes(lm, [EDIT])
    estimate = sizes.learning(rows, width, lm.num_layers)
    assert sum(kept.values()) < estimate + 3 * logits
    assert estimate < 6 * sum(kept.values())


@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_family_has_its_sizes(family: str, tiny: Callable[..., LanguageModel]) -> None:
    lm = tiny(family)
    sizes = Sizes(lm, [EDIT])
    assert sizes.inner >= sizes.hidden > 0
    assert sizes.read >= sizes.inner  # a gated feed-forward reads twice as much as it hands on
    assert 0 < sizes.width() <= lm.context


def test_quantised_maps_say_their_sizes_too(tiny_lm: LanguageModel) -> None:
    class Packed(nn.Module):
        in_features, out_features = 48, 32

    class Mute(nn.Module):
        weight = None

    assert footprint._shape(Packed(), (1, 2)) == (48, 32)
    assert footprint._shape(Mute(), (1, 2)) == (1, 2)


def test_the_largest_stage_counts_beside_what_is_kept(tiny_lm: LanguageModel) -> None:
    found = Footprint((Need("a", 5), Need("b", 7, 1)), (Need("c", device=20), Need("d", 11)))
    assert (found.host, found.device, found.total) == (28, 26, 41)  # and a quarter on top
    assert too_large(found, limited(tiny_lm, 41)) is None
    assert "for c" in (too_large(found, limited(tiny_lm, 40)) or "")


def test_a_graphics_card_and_main_memory_are_looked_at_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCard:
        device, room, memory_limit = torch.device("cuda"), 30, None

    found = Footprint((Need("moments", host=50), Need("rows", device=20)))
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 70)
    assert too_large(found, OnCard()) is None  # type: ignore[arg-type]
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 40)
    assert "moments" in (too_large(found, OnCard()) or "")  # type: ignore[arg-type]
    monkeypatch.setattr(OnCard, "room", 10)
    assert "rows" in (too_large(found, OnCard()) or "")  # type: ignore[arg-type]


def test_moments_of_gpt2_xls_width_are_counted(tiny_lm: LanguageModel) -> None:
    """6,400 inputs: C in float64 is 0.31 GiB; five layers with their factors and the work take between 3 and 5."""
    sizes = Sizes(tiny_lm, [EDIT])
    sizes.inner = 6400
    assert 3 < sizes.moments(5).host / 2**30 < 5
