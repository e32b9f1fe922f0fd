"""Many thin changes become one matrix where that is less, and mean the same."""

from __future__ import annotations

import torch

from editors.compacting import compacted
from language_model.model import LanguageModel
from language_model.overlay import Dense, LowRank, Overlay


def thin(seed: int, rank: int = 1) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(128, rank, generator=generator), 0.01 * torch.randn(rank, 32, generator=generator))


def test_few_changes_stay_as_they_are(tiny_lm: LanguageModel) -> None:
    overlay = Overlay({tiny_lm.architecture.down(0): (thin(0), thin(1))})
    assert compacted(overlay) is overlay
    whole = Overlay({tiny_lm.architecture.down(0): (Dense(thin(0).dense()),)})
    assert compacted(whole) is whole


def test_many_become_one_and_mean_the_same(tiny_lm: LanguageModel) -> None:
    down = tiny_lm.architecture.down
    overlay = Overlay({down(0): tuple(thin(n) for n in range(40)), down(1): (thin(90),)})
    small = compacted(overlay)
    assert [type(part) for part in small.parts[down(0)]] == [Dense]
    assert small.parts[down(1)] == overlay.parts[down(1)]
    assert small.num_bytes < overlay.num_bytes
    batch = tiny_lm.batch(["The capital of France is"])
    said = [tiny_lm.forward(batch, overlays=[item]) for item in (overlay, small)]
    assert torch.allclose(*said, atol=1e-3)
