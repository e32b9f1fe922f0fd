"""Causal tracing finds the layer at which a model of known mechanism keeps its facts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from editors.base import EditRefused
from editors.locate import PLACES, Located, facts_known, load_located, locate, save_located, save_plot
from knowledge.edit import Edit
from knowledge.errors import InvalidInput
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.tiny import tiny_model
from tests.editors.helpers import TEMPLATES, facts


@pytest.fixture(scope="module")
def found(trained: LanguageModel) -> Located:
    known = [Edit(TEMPLATES[rel][0][0], subject, answer, answer, rel) for subject, rel, answer in facts()[:8]]
    return locate(trained, known, samples=2)


def test_what_the_noise_takes_the_clean_values_give_back(found: Located, trained: LanguageModel) -> None:
    assert found.clean > 0.9
    assert found.corrupted < 0.5 * found.clean
    lost = found.clean - found.corrupted
    block = torch.tensor(found.effects["block"])
    assert block.shape == (trained.num_layers, len(PLACES))
    # The last block's output at the last token is all that the answer is read from.
    assert float(block[-1, PLACES.index("last token")]) == pytest.approx(lost, abs=1e-4)
    # What a late layer says at the subject is read by no one.
    assert float(block[-1, PLACES.index("last subject token")]) == pytest.approx(0, abs=1e-5)
    assert 0 <= found.layer < trained.num_layers - 1
    assert found.layers[-1] == found.layer


def test_the_same_seed_gives_the_same_trace(trained: LanguageModel, found: Located) -> None:
    known = [Edit(TEMPLATES[rel][0][0], subject, answer, answer, rel) for subject, rel, answer in facts()[:8]]
    assert locate(trained, known, samples=2) == found


@pytest.mark.parametrize("family", ["gptj", "opt", "llama", "falcon"])
def test_every_family_can_be_traced(family: str, tiny: Callable[..., LanguageModel]) -> None:
    lm = tiny(family)
    traced = locate(lm, [Edit("The capital of {} is", "France", "Oslo")], samples=1)
    assert all(torch.tensor(values).isfinite().all() for values in traced.effects.values())
    assert traced.layer == 0  # of two layers, the last can be read by no later one


def test_a_result_is_kept_for_its_own_model_and_drawn(found: Located, trained: LanguageModel, tmp_path: Path) -> None:
    assert load_located(trained, tmp_path) is None
    path = save_located(found, tmp_path)
    assert load_located(trained, tmp_path) == found
    assert load_located(tiny_model("gpt2", seed=8), tmp_path) is None
    path.write_text("damaged")
    assert load_located(trained, tmp_path) is None
    picture = save_plot(found, tmp_path / "plots" / "trace.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInput, match="no picture"):
        save_plot(found, tmp_path / "trace.txt")


def test_a_model_that_knows_nothing_cannot_be_traced(tiny_lm: LanguageModel) -> None:
    with pytest.raises(EditRefused, match="too few to trace"):
        facts_known(tiny_lm, load_world(), tried=8)
