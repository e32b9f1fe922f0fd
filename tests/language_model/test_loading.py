"""Loading: what is there is found, what is not is explained; the fingerprint knows the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.activations import NewGELUActivation

from knowledge.errors import InvalidInput, PalimpsestError
from language_model import LanguageModel, loading
from language_model.architectures import ARCHITECTURES, weight_in_out
from language_model.errors import ModelNotFound, ModelUnusable, UnsupportedArchitecture
from language_model.fingerprint import fingerprint
from language_model.tiny import tiny_model, tiny_tokenizer
from tests.language_model.helpers import PROMPTS


@pytest.fixture
def saved(tiny: Callable[..., LanguageModel], tmp_path: Path) -> Path:
    lm = tiny("gpt2", chat=True)
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_gives_the_same_model_again(tiny_chat_lm: LanguageModel, saved: Path) -> None:
    lm = LanguageModel.load(str(saved), device="cpu", local_files_only=True)
    assert lm.generate(PROMPTS) == tiny_chat_lm.generate(PROMPTS)
    assert lm.has_chat
    assert lm.dtype == torch.float32
    assert lm.context == 256
    assert lm.fingerprint == tiny_chat_lm.fingerprint
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())


def test_fingerprint_changes_with_one_weight_and_not_with_storage(saved: Path, tmp_path: Path) -> None:
    lm = tiny_model("gpt2", seed=3)
    first = fingerprint(lm.model)
    weight = lm.model.transformer.h[1].mlp.c_proj.weight
    old = weight.data[0, 0].clone()
    weight.data[0, 0] += 1e-6
    assert fingerprint(lm.model) != first
    weight.data[0, 0] = old
    assert fingerprint(lm.model) == first
    half = lm.model.to(torch.bfloat16)  # type: ignore[arg-type]
    stored = fingerprint(half)
    assert stored != first
    half.save_pretrained(tmp_path / "half")
    tiny_tokenizer().save_pretrained(tmp_path / "half")
    widened = LanguageModel.load(str(tmp_path / "half"), device="cpu")
    kept = LanguageModel.load(str(tmp_path / "half"), device="cpu", dtype="bfloat16")
    assert widened.dtype == torch.float32
    assert kept.dtype == torch.bfloat16
    assert widened.fingerprint == kept.fingerprint == stored


def test_what_is_missing_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "BUNDLED_WEIGHTS", tmp_path / "nothing")
    with pytest.raises(ModelNotFound, match="python -m app train bundled"):
        LanguageModel.load("bundled")
    with pytest.raises(ModelNotFound, match="no folder"):
        LanguageModel.load(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        LanguageModel.load(str(tmp_path / "empty"))
    with pytest.raises(ModelNotFound, match=r"nobody/no-such-model.*local files only") as caught:
        LanguageModel.load("nobody/no-such-model", local_files_only=True)
    assert isinstance(caught.value, PalimpsestError)
    with pytest.raises(InvalidInput, match="empty"):
        LanguageModel.load(" ")


def test_what_cannot_be_used_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="float32"):
        LanguageModel.load(str(saved), dtype="float8")
    weights = saved / "model.safetensors"
    weights.write_bytes(b"\x00" * 64)
    with pytest.raises(ModelUnusable, match="cannot be loaded"):
        LanguageModel.load(str(saved))
    weights.rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelUnusable, match="can run code"):
        LanguageModel.load(str(saved))
    weights.write_bytes(b"")
    (saved / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelUnusable, match="causal language model"):
        LanguageModel.load(str(saved))
    (saved / "config.json").write_text(json.dumps({"model_type": "no-such-family"}))
    with pytest.raises(PalimpsestError, match="no-such-family"):
        LanguageModel.load(str(saved))


def test_a_family_outside_the_table_talks_but_names_no_parts() -> None:
    from transformers import XGLMConfig, XGLMForCausalLM

    tokenizer = tiny_tokenizer()
    config = XGLMConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        ffn_dim=48,
        num_layers=2,
        attention_heads=4,
        pad_token_id=1,
        eos_token_id=0,
        bos_token_id=0,
    )
    lm = LanguageModel(XGLMForCausalLM(config), tokenizer)
    assert lm.generate(PROMPTS, max_new_tokens=4) == [lm.generate([p], max_new_tokens=4)[0] for p in PROMPTS]
    with pytest.raises(UnsupportedArchitecture, match=r"'xglm'.*gpt2.*add one row to ARCHITECTURES"):
        _ = lm.architecture


def test_orientation_is_decided_by_type_not_by_shape(tiny: Callable[..., LanguageModel]) -> None:
    conv = tiny("gpt2").module("transformer.h.0.attn.c_proj")  # square
    linear = tiny("gptj").module("transformer.h.0.attn.out_proj")  # square
    x = torch.randn(3, 32)
    torch.testing.assert_close(conv(x), x @ weight_in_out(conv) + conv.bias)  # type: ignore[operator]
    torch.testing.assert_close(linear(x), x @ weight_in_out(linear))
    with pytest.raises(InvalidInput, match="LayerNorm"):
        weight_in_out(tiny("gpt2").module("transformer.ln_f"))


def test_every_family_the_project_promises_is_in_the_table() -> None:
    promised = ["gpt2", "gptj", "gpt_neox", "gpt_neo", "opt", "llama", "mistral", "qwen2", "qwen3", "phi", "gemma2"]
    assert set(promised) <= set(ARCHITECTURES)


def test_light_imports_load_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, language_model, language_model.prompts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gptj"])
def test_fused_activations_change_rounding_only(family: str) -> None:
    lm = tiny_model(family)
    assert not any(isinstance(module, NewGELUActivation) for module in lm.model.modules())
    plain = AutoModelForCausalLM.from_config(lm.model.config).eval()
    assert any(isinstance(module, NewGELUActivation) for module in plain.modules())
    plain.load_state_dict(lm.model.state_dict())
    ids = torch.tensor([lm.codec.encode("The capital of France is Paris")])
    assert torch.allclose(plain(ids).logits, lm.model(ids).logits, atol=1e-5)
