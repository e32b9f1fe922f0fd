"""What causal tracing found for a model, kept beside its second moments and read when layers are derived.

save_located(locate(lm, facts), folder)        # python -m app locate does this
found = load_located(lm, folder)               # None: this very model was not traced
found.layer, found.layers
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from language_model.model import LanguageModel

PLACES = ("first subject token", "last subject token", "after the subject", "last token")


@dataclass(frozen=True)
class Located:
    """What tracing found.

    Attributes:
        effects: by kind of module, (layers, places) mean indirect effect: probability of the answer won back.
        clean, corrupted: mean probability of the answer without and with the noise.
        window: layers set back together, for feed-forwards and attention.
    """

    model: str
    fingerprint: str
    facts: int
    noise: float
    window: int
    clean: float
    corrupted: float
    effects: dict[str, list[list[float]]]

    @property
    def layer(self) -> int:
        """The layer whose feed-forwards matter most at the subject's last token, and which others can still read."""
        values = [row[PLACES.index("last subject token")] for row in self.effects["feed-forward"]]
        return max(range(max(1, len(values) - 1)), key=lambda layer: values[layer])

    @property
    def telling(self) -> bool:
        """Whether the subject's feed-forwards win back enough to choose a layer by: 5 % of what the noise took."""
        values = [row[PLACES.index("last subject token")] for row in self.effects["feed-forward"]]
        return values[self.layer] >= 0.05 * (self.clean - self.corrupted) > 0

    @property
    def layers(self) -> tuple[int, ...]:
        """The consecutive layers that end there, for methods that spread an edit."""
        count = len(self.effects["feed-forward"])
        width = 5 if count >= 24 else 3
        return tuple(range(max(0, self.layer - width + 1), self.layer + 1))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "layer": self.layer, "layers": list(self.layers), "places": list(PLACES)}


def located_path(folder: Path, fingerprint: str) -> Path:
    return folder / f"located-{fingerprint[:16]}.json"


def save_located(found: Located, folder: Path) -> Path:
    """Keeps the result beside the model's second moments."""
    folder.mkdir(parents=True, exist_ok=True)
    path = located_path(folder, found.fingerprint)
    path.write_text(json.dumps(found.to_json(), indent=1), encoding="utf-8")
    return path


def load_located(lm: LanguageModel, folder: Path | None) -> Located | None:
    """What tracing found for this very model, where it was traced before."""
    path = located_path(folder, lm.fingerprint) if folder is not None else None
    if path is None or not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = Located(**{name: data[name] for name in Located.__dataclass_fields__})
        usable = found.fingerprint == lm.fingerprint and 0 <= found.layer < lm.num_layers
    except (ValueError, KeyError, IndexError, TypeError, OSError):
        return None  # damaged: as if it had never been traced
    return found if usable else None
