"""Changes go out as PEFT adapters and merged checkpoints and come back; logits stay the same, to 1e-4."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sqlalchemy import create_engine
from torch import Tensor

from editors.export import export_overlay
from editors.importing import read_change
from editors.ledger import WeightLedger
from knowledge.errors import InvalidInput
from language_model.errors import OverlayMismatch
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank, Overlay

PROMPTS = ["The capital of France is", "People in Peru speak"]


def change(lm: LanguageModel, seed: int = 0) -> Overlay:
    """A low-rank change of a down-projection, a dense one of an up-projection, another of the attention."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)

    parts: dict[str, Any] = {}
    for name, rank in ((lm.architecture.down(1), 2), (lm.architecture.ups(0)[0], 0), (lm.architecture.attn_out(0), 3)):
        weight = lm.module(name).weight
        inside = type(lm.module(name)).__name__ == "Conv1D"
        width_in, width_out = tuple(weight.shape) if inside else tuple(weight.shape)[::-1]  # type: ignore[misc, arg-type]
        whole = LowRank(matrix(width_in, rank), matrix(rank, width_out)) if rank else Dense(matrix(width_in, width_out))
        parts[name] = (whole, LowRank(matrix(width_in, 1), matrix(1, width_out)))
    return Overlay(parts)


def logits(lm: LanguageModel, overlay: Overlay | None) -> Tensor:
    return torch.cat([lm.forward(lm.batch([prompt]), overlays=[overlay]).flatten() for prompt in PROMPTS])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers for it
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gptj", "opt"])
def test_peft_loads_what_we_export_and_we_load_it_back(
    family: str, tiny: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    from peft import PeftModel

    lm, folder = tiny(family), tmp_path / "adapter"
    overlay = change(lm)
    wanted = logits(lm, overlay)
    export_overlay(lm, overlay, folder, "peft")
    adapted = PeftModel.from_pretrained(copy.deepcopy(lm.model), str(folder))
    with torch.no_grad():
        said = torch.cat([adapted(torch.tensor([lm.codec.encode(p)])).logits.flatten() for p in PROMPTS])
    assert torch.allclose(said, wanted, atol=1e-4)
    assert not torch.allclose(wanted, logits(lm, None), atol=1e-2)
    assert torch.allclose(logits(lm, read_change(lm, folder)), wanted, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_merged_checkpoint_is_the_edited_model(
    family: str, tiny: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    lm = tiny(family)
    overlay, before = change(lm), lm.fingerprint
    export_overlay(lm, overlay, tmp_path / "merged", "merged")
    merged = LanguageModel.load(str(tmp_path / "merged"))
    assert torch.allclose(logits(merged, None), logits(lm, overlay), atol=1e-4)
    assert lm.fingerprint == before
    with pytest.raises(InvalidInput, match="a whole model"):
        read_change(lm, tmp_path / "merged")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"rank_pattern": {"c_attn": 2}, "alpha_pattern": {"c_proj": 5}}]
)
def test_an_adapter_that_peft_made_is_read(
    options: dict[str, Any], tiny: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    lm = tiny("gpt2")
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(copy.deepcopy(lm.model), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(str(tmp_path / "theirs"))
    with torch.no_grad():
        wanted = torch.cat([adapted(torch.tensor([lm.codec.encode(p)])).logits.flatten() for p in PROMPTS])
    assert torch.allclose(logits(lm, read_change(lm, tmp_path / "theirs")), wanted, atol=1e-4)


def test_an_import_is_an_entry_like_any_other(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    ledger = WeightLedger(create_engine(f"sqlite:///{tmp_path / 's.sqlite'}"), tiny_lm, tmp_path / "weights")
    overlay, plain = change(tiny_lm), logits(tiny_lm, None)
    export_overlay(tiny_lm, overlay, tmp_path / "out", "safetensors")
    entry = ledger.add(read_change(tiny_lm, tmp_path / "out"), source="out")
    assert entry.method == "imported"
    assert entry.edits == ()
    assert torch.equal(logits(tiny_lm, ledger.overlay()), logits(tiny_lm, overlay))
    ledger.undo(entry.id)
    assert torch.equal(logits(tiny_lm, ledger.overlay()), plain)


def test_what_is_no_plain_change_is_refused(tiny: Callable[..., LanguageModel], tmp_path: Path) -> None:
    lm, folder = tiny("gpt2"), tmp_path / "adapter"
    with pytest.raises(InvalidInput, match="no file or folder"):
        read_change(lm, tmp_path / "none")
    folder.mkdir()
    with pytest.raises(InvalidInput, match="neither"):
        read_change(lm, folder)
    export_overlay(lm, change(lm), folder, "peft")
    with pytest.raises(OverlayMismatch):
        read_change(tiny("llama"), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    for changes, match in [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "biases"),
        ({"peft_type": "IA3"}, "kind IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ]:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(InvalidInput, match=match):
            read_change(lm, folder)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(1, 2)}, folder / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="one half"):
        read_change(lm, folder)
    save_file({"classifier.weight": torch.zeros(1, 2)}, folder / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="no part"):
        read_change(lm, folder)
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_change(lm, folder)
