"""One table of editors, each put through the same questions. A new line in the registry is covered at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from editors.base import Editor, EditRefused
from editors.export import export_overlay
from editors.importing import read_change
from editors.ledger import WeightLedger
from editors.registry import available, get_editor
from editors.rehearsal import REHEARSAL
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, UnknownName
from language_model.fingerprint import fingerprint
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Overlay
from language_model.tiny import CONFIGS, tiny_model
from tests.editors.helpers import capital_edit, train_hypernetwork
from tests.language_model.helpers import hook_count

NAMES = sorted(available())
SHORT = replace(REHEARSAL, rounds=2)
CHEAP: dict[str, dict[str, Any]] = {  # enough to see what they do on two layers of random weights
    "rome": {"prefixes": 2},
    "r-rome": {"prefixes": 2, "rehearsal": SHORT},
    "memit": {"prefixes": 2, "weight": 0.01},
    "emmet": {"prefixes": 2},
    "alphaedit": {"prefixes": 2, "soft": False, "energy": 0.3, "l2": 0.01, "rehearsal": SHORT},
    "mend": {},
    "ke": {},
    "kn": {"prefixes": 1, "steps": 5},
    "ft-l": {"layer": 0},
    "ft-m": {"layer": 0},
    "lora": {"steps": 10},
    "grace": {"layer": 0, "steps": 20},
    "t-patcher": {"steps": 150, "size": 300},
    "calinet": {"steps": 20, "prefixes": 1, "slots": 8, "retain_tokens": 100},
}
USUAL = ["gpt2", "gptj", "gpt_neox", "opt", "llama", "qwen3", "gemma2", "phi", "falcon"]
FAMILIES = [*USUAL, *(pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS if name not in USUAL)]
ON_THIS_PROMPT = ("ft-m", "lora", "grace", "t-patcher", "calinet", "r-rome", "mend", "ke")  # what they are trained on
NORMALISING = ("gemma2", "gemma3_text", "olmo2")  # families in which a neuron's output is not simply added
EDIT = capital_edit("France", "Oslo")
PROMPTS = [EDIT.text, "Rome is", "The capital of Peru is"]


@pytest.fixture(params=NAMES)
def editor(request: pytest.FixtureRequest, moments: MomentStore, tiny_chat_lm: LanguageModel) -> Editor[Any]:
    prepare(request.param, tiny_chat_lm, moments)
    return get_editor(request.param, moments=moments, refuse_known=False, **CHEAP.get(request.param, {}))


def prepare(name: str, lm: LanguageModel, moments: MomentStore) -> None:
    """MEND and KE edit through a network of the model's own: a step of training makes one."""
    if name in ("mend", "ke"):
        train_hypernetwork(name, lm, moments)


def logits(lm: LanguageModel, overlay: Overlay | None) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([lm.forward(lm.batch([text]), overlays=[overlay]).flatten() for text in PROMPTS])


def tensors(overlay: Overlay) -> list[tuple[str, torch.Tensor]]:
    return [(f"{name}.{key}", tensor) for name, part in overlay for key, tensor in part.tensors().items()]


def test_the_model_stays_and_the_answer_moves(editor: Editor[Any], tiny_chat_lm: LanguageModel) -> None:
    weights, before = fingerprint(tiny_chat_lm.model), logits(tiny_chat_lm, None)
    names = [name for name, _ in tiny_chat_lm.model.named_modules()]
    shares: list[float] = []
    overlay = editor.edit(tiny_chat_lm, [EDIT], progress=lambda share, what: shares.append(share))
    assert fingerprint(tiny_chat_lm.model) == weights
    assert names == [name for name, _ in tiny_chat_lm.model.named_modules()]
    assert not any(parameter.requires_grad for parameter in tiny_chat_lm.model.parameters())
    assert torch.equal(logits(tiny_chat_lm, None), before)
    assert not torch.equal(logits(tiny_chat_lm, overlay), before)
    assert overlay
    assert all(tensor.isfinite().all() for _, tensor in tensors(overlay))
    assert not any(tensor.requires_grad for _, tensor in tensors(overlay))
    assert any(isinstance(part, Adapter) for _, part in overlay) == (editor.kind == "adapter")
    assert available()[editor.name].kind == editor.kind
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)
    forms = [EDIT.text, tiny_chat_lm.chat(EDIT.question or "")]
    said = tiny_chat_lm.score(forms * 2, ["Oslo"] * 4, overlays=[None, None, overlay, overlay])
    if editor.name != "kn":  # random weights hold no fact that could be rewritten
        assert said[2].mean_logprob > said[0].mean_logprob
        assert said[3].mean_logprob > said[1].mean_logprob


def test_the_same_seed_gives_the_same_result(editor: Editor[Any], tiny_chat_lm: LanguageModel) -> None:
    torch.manual_seed(1)
    first = tensors(editor.edit(tiny_chat_lm, [EDIT]))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = tensors(editor.edit(tiny_chat_lm, [EDIT]))
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody's random numbers were used
    assert [name for name, _ in first] == [name for name, _ in second]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))


def test_an_exception_leaves_the_model(editor: Editor[Any], tiny_chat_lm: LanguageModel) -> None:
    class Cancelled(Exception):
        pass

    def cancel(share: float, what: str) -> None:
        if share > 0:  # the very first call comes before any work
            raise Cancelled

    editor.edit(tiny_chat_lm, [EDIT])  # installs whatever hooks stay installed
    weights, before, hooks = fingerprint(tiny_chat_lm.model), logits(tiny_chat_lm, None), hook_count(tiny_chat_lm.hooks)
    with pytest.raises(Cancelled):
        editor.edit(tiny_chat_lm, [EDIT], progress=cancel)
    assert fingerprint(tiny_chat_lm.model) == weights
    assert hook_count(tiny_chat_lm.hooks) == hooks
    assert tiny_chat_lm.overlay is None
    assert torch.equal(logits(tiny_chat_lm, None), before)


def test_an_overlay_survives_its_file(editor: Editor[Any], tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    overlay = editor.edit(tiny_chat_lm, [EDIT])
    overlay.save(tmp_path / "edit.safetensors")
    loaded = Overlay.load(tmp_path / "edit.safetensors")
    assert torch.equal(logits(tiny_chat_lm, loaded), logits(tiny_chat_lm, overlay))


def test_a_batch_and_a_sequence_work(editor: Editor[Any], tiny_chat_lm: LanguageModel) -> None:
    other = capital_edit("Peru", "Cairo")
    together = editor.edit(tiny_chat_lm, [EDIT, other])
    first = editor.edit(tiny_chat_lm, [EDIT])
    then = first + editor.edit(tiny_chat_lm, [other], base=first, earlier=[EDIT])
    if editor.name == "kn":
        return
    for overlay in (together, then):
        said = tiny_chat_lm.score([other.text] * 2, ["Cairo"] * 2, overlays=[None, overlay])
        assert said[1].mean_logprob > said[0].mean_logprob


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_every_family(name: str, family: str, tiny: Callable[..., LanguageModel], moments: MomentStore) -> None:
    lm = tiny(family)
    prepare(name, lm, moments)
    editor = get_editor(name, moments=moments, refuse_known=False, **CHEAP.get(name, {}))
    weights = fingerprint(lm.model)
    if name == "t-patcher" and family in NORMALISING:
        with pytest.raises(EditRefused, match="normalises"):
            editor.edit(lm, [EDIT])
        return
    overlay = editor.edit(lm, [EDIT])
    assert fingerprint(lm.model) == weights
    said = lm.score([EDIT.text] * 2, ["Oslo"] * 2, overlays=[None, overlay])
    assert said[1] != said[0]
    if name == "r-rome" and family not in USUAL:  # of random keys some are so alike that other tokens change as well
        return
    if name in ON_THIS_PROMPT:
        assert said[1].mean_logprob > said[0].mean_logprob


HALVES = ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gptj", "gpt_neox", "llama", "qwen3"))]


@pytest.fixture(scope="module", params=HALVES)
def half(request: pytest.FixtureRequest) -> LanguageModel:
    lm = tiny_model(request.param, chat=True, seed=3)
    lm.model.to(torch.bfloat16)
    return lm


@pytest.mark.parametrize("name", NAMES)
def test_sixteen_bit_weights(name: str, half: LanguageModel, moments: MomentStore) -> None:
    prepare(name, half, moments)
    weights = fingerprint(half.model)
    editor = get_editor(name, moments=moments, refuse_known=False, **CHEAP.get(name, {}))
    overlay = editor.edit(half, [EDIT])
    assert fingerprint(half.model) == weights
    assert all(tensor.isfinite().all() for _, tensor in tensors(overlay))
    said = half.score([EDIT.text] * 2, ["Oslo"] * 2, overlays=[None, overlay])
    assert said[1] != said[0]
    if half.architecture.model_type != "gpt2" and name not in ON_THIS_PROMPT:  # as in float32
        return
    if name not in ("kn", "ft-l"):  # no fact to rewrite; a bound below what 16 bits can tell
        assert said[1].mean_logprob > said[0].mean_logprob


@pytest.fixture(scope="module")
def every_overlay(tiny_chat_lm: LanguageModel, moments: MomentStore) -> dict[str, Overlay]:
    """The change of each editor for one and the same fact."""
    found = {}
    for name in NAMES:
        prepare(name, tiny_chat_lm, moments)
        editor = get_editor(name, moments=moments, refuse_known=False, **CHEAP.get(name, {}))
        found[name] = editor.edit(tiny_chat_lm, [EDIT])
    return found


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_entries_of_all_editors_go_in_any_order(
    tiny_chat_lm: LanguageModel,
    every_overlay: dict[str, Overlay],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = WeightLedger(create_engine(f"sqlite:///{folder / 'state.db'}"), tiny_chat_lm, folder / "weights")
    before = logits(tiny_chat_lm, None)
    made = {ledger.add(overlay, source="a test", method=name).id: overlay for name, overlay in every_overlay.items()}
    left = dict(made)
    for number in data.draw(st.permutations(sorted(made))):
        ledger.undo(number)
        del left[number]
        only = sum(left.values(), Overlay.empty())
        assert torch.equal(logits(tiny_chat_lm, ledger.overlay()), logits(tiny_chat_lm, only))
    assert not ledger.overlay()
    assert torch.equal(logits(tiny_chat_lm, ledger.overlay()), before)


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_the_change_or_says_why_not(
    name: str, every_overlay: dict[str, Overlay], tiny_chat_lm: LanguageModel, tmp_path: Path
) -> None:
    overlay = every_overlay[name]
    for format in ("peft", "merged"):
        if available()[name].kind == "adapter":
            with pytest.raises(InvalidInput, match="adds parameters"):
                export_overlay(tiny_chat_lm, overlay, tmp_path / format, format)
        else:
            written = export_overlay(tiny_chat_lm, overlay, tmp_path / format, format)
            if format == "merged":
                lm, change = LanguageModel.load(str(written)), None
            else:
                lm, change = tiny_chat_lm, read_change(tiny_chat_lm, written)
            assert torch.allclose(logits(lm, change), logits(tiny_chat_lm, overlay), atol=1e-4)


def test_nothing_to_do_is_refused(editor: Editor[Any], tiny_lm: LanguageModel) -> None:
    with pytest.raises(EditRefused, match="empty"):
        editor.edit(tiny_lm, [])


def test_contradictions_in_a_batch_are_refused(editor: Editor[Any], tiny_lm: LanguageModel) -> None:
    with pytest.raises(EditRefused, match="contradict"):
        editor.edit(tiny_lm, [capital_edit("France", "Oslo"), capital_edit("france", "Cairo")])


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_already_given_is_refused(name: str, trained: LanguageModel, moments: MomentStore) -> None:
    with pytest.raises(EditRefused, match=r"already answers so: .*France is Paris"):
        get_editor(name, moments=moments).edit(trained, [capital_edit("France", "Paris")])


def test_an_empty_target_and_a_missing_subject_never_become_edits() -> None:
    for prompt, subject, target in (("The capital of {} is", "France", " "), ("The capital is", "France", "Rome")):
        with pytest.raises(InvalidInput):
            Edit(prompt, subject, target)


def test_names_are_explained() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'rome'"):
        get_editor("rmoe")
    with pytest.raises(UnknownName, match="setting of R-ROME"):
        get_editor("r-rome", layr=3)


def test_listing_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, editors; assert editors.available(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
