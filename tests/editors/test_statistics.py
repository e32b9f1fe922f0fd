"""Second moments: right, robust on small samples, and cached under everything they depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.passes import capture
from editors.statistics import Accumulator, MomentStore, SecondMoment
from knowledge.errors import PalimpsestError
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from language_model.tiny import tiny_model
from tests.editors.helpers import corpus
from tests.language_model.helpers import low_rank


def test_streaming_gives_the_average(tiny_lm: LanguageModel) -> None:
    texts = corpus()[:40]
    store = MomentStore(corpus=texts)
    moment = store.get(tiny_lm, [0, 1])[1]
    keys = []
    for text in texts:
        taken = capture(tiny_lm, [tiny_lm.codec.encode(text)], [1])[1]
        keys.append(taken.keys[0, 1:].double())  # the first token is left out
    every = torch.cat(keys)
    assert moment.tokens == len(every)
    raw = every.T @ every / len(every)
    off = ~torch.eye(raw.shape[0], dtype=torch.bool)
    assert torch.allclose(moment.matrix[off], (1 - moment.shrinkage) * raw[off], rtol=1e-4, atol=1e-6)
    ridge = moment.matrix.diagonal() - raw.diagonal()
    assert torch.allclose(ridge, torch.full_like(ridge, 1e-4 * float(raw.diagonal().mean())), rtol=0.05, atol=1e-6)


def test_shrinkage_helps_a_small_sample_and_fades_with_a_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    width = 60
    root = 0.5 * torch.randn(width, width, generator=generator) / width**0.5 + torch.eye(width)
    truth = (root.T @ root).double()

    def estimate(count: int) -> tuple[SecondMoment, torch.Tensor]:
        sample = torch.randn(count, width, generator=generator) @ root
        accumulator = Accumulator(width)
        for part in sample.split(50):
            accumulator.add(part[:, None], torch.ones(len(part), 1, dtype=torch.bool))
        return accumulator.shrunk(), (sample.T @ sample).double() / count

    small, raw = estimate(150)
    assert (small.matrix - truth).norm() < 0.9 * (raw - truth).norm()
    large, _ = estimate(20_000)
    assert large.shrinkage < 0.1 * small.shrinkage


def test_dead_neurons_do_not_make_it_singular() -> None:
    accumulator = Accumulator(8)
    keys = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    keys[:, 3] = 0
    accumulator.add(keys[None], torch.ones(1, 100, dtype=torch.bool))
    moment = accumulator.shrunk()
    assert torch.linalg.cholesky(moment.matrix).isfinite().all()
    assert moment.solve(torch.ones(8)).isfinite().all()


def test_solve_is_the_inverse() -> None:
    root = torch.randn(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = SecondMoment(root @ root.T + torch.eye(9), 10, 0.0)
    keys = torch.randn(9, 4, dtype=torch.float64)
    assert torch.allclose(moment.matrix @ moment.solve(keys), keys)
    assert torch.allclose(moment.solve(keys[:, 0]), moment.solve(keys)[:, 0])


def test_the_disk_cache_is_used_and_depends_on_everything(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    texts = corpus()

    def files() -> set[str]:
        return {path.name for path in tmp_path.iterdir()}

    first = MomentStore(texts, tmp_path, sample_tokens=300).get(tiny_lm, [0])[0]
    assert len(files()) == 1
    seen: list[float] = []
    again = MomentStore(texts, tmp_path, sample_tokens=300).get(tiny_lm, [0], lambda share, what: seen.append(share))[0]
    assert not seen  # nothing was computed
    assert torch.equal(first.matrix, again.matrix)
    assert (first.tokens, first.shrinkage) == (again.tokens, again.shrinkage)
    MomentStore(texts, tmp_path, sample_tokens=300).get(tiny_lm, [1])  # another layer
    MomentStore(texts, tmp_path, sample_tokens=600).get(tiny_lm, [0])  # another size
    MomentStore(texts[::-1], tmp_path, sample_tokens=300).get(tiny_lm, [0])  # another corpus
    MomentStore(texts, tmp_path, sample_tokens=300).get(tiny_model("gpt2", seed=77), [0])  # another model
    half = LanguageModel(tiny_model("gpt2", seed=3).model.bfloat16(), tiny_lm.tokenizer)
    MomentStore(texts, tmp_path, sample_tokens=300).get(half, [0])  # another dtype
    assert len(files()) == 6


def test_a_damaged_cache_is_computed_again(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    first = MomentStore(corpus(), tmp_path, sample_tokens=200).get(tiny_lm, [0])[0]
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing of use")
    again = MomentStore(corpus(), tmp_path, sample_tokens=200).get(tiny_lm, [0])[0]
    assert torch.equal(first.matrix, again.matrix)


def test_active_edits_do_not_enter(tiny_lm: LanguageModel) -> None:
    plain = MomentStore(corpus(), sample_tokens=200).get(tiny_lm, [1])[1]
    overlay: Overlay = low_rank(tiny_lm, layer=0)
    with tiny_lm.overlaid(overlay):
        edited = MomentStore(corpus(), sample_tokens=200).get(tiny_lm, [1])[1]
    assert torch.equal(plain.matrix, edited.matrix)


def test_a_text_file_serves_and_a_bad_one_is_explained(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    good, bad, empty = tmp_path / "good.txt", tmp_path / "bad.txt", tmp_path / "empty.txt"
    good.write_text("\n\n".join(corpus()), encoding="utf-8")
    bad.write_bytes(b"\xff\xfe\x00 not text")
    empty.write_text("\n\n")
    assert MomentStore(good, sample_tokens=200).get(tiny_lm, [0])[0].tokens >= 150
    for path, words in ((bad, "UTF-8"), (tmp_path / "none.txt", "plain text file"), (empty, "no usable text")):
        with pytest.raises(PalimpsestError, match=words):
            MomentStore(path).get(tiny_lm, [0])


def test_the_default_corpus_is_there(tiny_chat_lm: LanguageModel) -> None:
    moment = MomentStore(sample_tokens=500).get(tiny_chat_lm, [0])[0]
    assert moment.tokens >= 400
