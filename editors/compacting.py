"""Many changes of one weight as a single one, where that is less to carry and to multiply.

A sum of a thousand rank-one entries is a thousand thin products in every pass; as one matrix it is a single product.
"""

from __future__ import annotations

import torch

from language_model.overlay import Adapter, Dense, LowRank, Overlay, Part


def compacted(overlay: Overlay, *, least: int = 2) -> Overlay:
    """The same change, with the deltas of a module summed in float64 where their factors outgrow the matrix.

    Modules with fewer than ``least`` deltas stay as they are, to the last bit. Adapters stay, behind the deltas, as
    they count anyway. An overlay that is small already comes back as it is.
    """
    parts: dict[str, tuple[Part, ...]] = {}
    changed = False
    for name, own in overlay.parts.items():
        deltas = [part for part in own if not isinstance(part, Adapter)]
        if len(deltas) < max(2, least) or not _too_wide(deltas):
            parts[name] = own
            continue
        total = torch.zeros(deltas[0].shape, dtype=torch.float64)
        for part in deltas:
            total += part.to("cpu", torch.float64).dense()
        parts[name] = (Dense(total.float()), *(part for part in own if isinstance(part, Adapter)))
        changed = True
    return Overlay(parts) if changed else overlay


def _too_wide(deltas: list[LowRank | Dense]) -> bool:
    width_in, width_out = deltas[0].shape
    numbers = sum(part.rank * sum(part.shape) if isinstance(part, LowRank) else width_in * width_out for part in deltas)
    return numbers > width_in * width_out
