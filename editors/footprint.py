"""What an edit takes in memory, estimated before it is begun, so that too large a one is refused and not killed.

    found = editor.footprint(lm, edits, settings)
    found.total                      # bytes beside the loaded model
    too_large(found, lm)             # None, or why there is no room for it

An estimate counts what the method keeps to its end (second moments, deltas) and its largest stage on top. The constants
are those of PyTorch's eager attention; ``python -m benchmarks.editors speed`` prints the estimate beside the measured
peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel

GIB = 1 << 30
_DOUBLE, _FLOAT = 8, 4
_PASS_TOKENS = 8192  # in a pass that reads keys
_CHAT_ROWS = 5  # at most of an edit in the chat form (see editors.problems)
_LARGEST_READ = 24  # edits of which the rows are measured, the longest by characters


@dataclass(frozen=True)
class Footprint:
    """Bytes by what they are for.

    Attributes:
        kept: there until the edit is done; adds up.
        stages: one after another; the largest counts.
    """

    kept: Mapping[str, int] = field(default_factory=dict)
    stages: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.kept.values()) + max(self.stages.values(), default=0)

    @property
    def largest(self) -> tuple[str, int]:
        """What takes most of it."""
        parts = {**self.kept, **self.stages}
        name = max(parts, key=lambda part: parts[part])
        return name, parts[name]


class Sizes:
    """The sizes of a model and of some edits' rows, and what passes over them take."""

    def __init__(self, lm: LanguageModel, edits: Sequence[Edit]) -> None:
        self.lm, self.edits = lm, edits
        row = lm.architecture
        config = lm.model.config.get_text_config()
        self.layers, self.hidden, self.vocab = lm.num_layers, lm.hidden_size, lm.vocab_size
        self.heads = int(getattr(config, "num_attention_heads", 0) or self.hidden // 64)
        shapes = [weight_in_out(lm.module(row.down(layer))).shape for layer in range(self.layers)]
        self.inner, self.out = max(int(shape[0]) for shape in shapes), max(int(shape[1]) for shape in shapes)
        self.read = sum(int(weight_in_out(lm.module(name)).shape[1]) for name in row.ups(0))  # a gate counts too
        self.element = lm.dtype.itemsize

    @cached_property
    def _lengths(self) -> tuple[int, int]:
        """Tokens of the longest row, and of the longest target."""
        from editors.rewrites import forms_of

        longest = sorted(self.edits, key=lambda edit: len(edit.statement), reverse=True)[:_LARGEST_READ]
        forms = [(form, edit.target_new) for edit in longest for form in forms_of(self.lm, edit)]
        targets = [len(form.target_ids(self.lm, target)) for form, target in forms]
        prompts = [len(self.lm.codec.encode(form.prompt)) for form, _ in forms]
        return max(map(sum, zip(prompts, targets, strict=True))), max(targets)

    def rows(self, prefixes: int = 0) -> int:
        """Rows of all edits: bare and behind prefixes, completion and chat."""
        return len(self.edits) * (1 + prefixes + min(1 + prefixes, _CHAT_ROWS))

    def width(self, prefix: int = 0) -> int:
        """Tokens of the longest row behind a prefix of so many tokens."""
        return min(self.lm.context, self._lengths[0] + prefix)

    @property
    def target(self) -> int:
        """Tokens of the longest target."""
        return self._lengths[1]

    def passing(self, rows: int, width: int) -> int:
        """A pass without gradients: one block's activations at a time."""
        each = 6 * self.hidden + 2 * self.read + self.inner + 2 * self.heads * width
        return rows * width * each * self.element

    def learning(self, rows: int, width: int, layers: int) -> int:
        """A pass through so many layers that keeps what its gradient needs."""
        each = 12 * self.hidden + 3 * self.read + 2 * self.inner + 3 * self.heads * width
        return rows * width * each * layers * self.element

    def logits(self, positions: int) -> int:
        """Logits with their softmax and gradient, float32."""
        return 3 * positions * self.vocab * _FLOAT

    def moments(self, layers: int) -> int:
        """C and its Cholesky factor of so many layers, and what their computation takes beside them; float64."""
        return (2 * layers + 3) * self.inner**2 * _DOUBLE

    def reading_keys(self, rows: int, width: int) -> int:
        """A pass for keys, and the activations at all rows' subjects (twice while they are put together)."""
        at_once = min(rows, max(1, _PASS_TOKENS // width))
        kept = at_once * width * (self.inner + 2 * self.hidden) * self.element
        return self.passing(at_once, width) + kept + 2 * rows * (self.inner + 2 * self.hidden) * _DOUBLE

    def suffix(self, rows: int, width: int) -> int:
        """What lies below a layer, computed once for rows that are all there together."""
        return self.passing(rows, width) + rows * width * (5 * self.hidden + self.inner) * self.element

    def values(self, rows: int, width: int, layer: int, tokens: int) -> int:
        """The search for target values above ``layer``: as many rows at once as ``tokens`` allow, one edit at least."""
        at_once = min(rows, max(rows // max(1, len(self.edits)), tokens // width))
        above = self.layers - 1 - layer
        cached = at_once * width * 2 * self.hidden * above * self.element
        reads = self.logits(at_once * self.target)
        return self.suffix(at_once, width) + cached + self.learning(at_once, width, above) + reads

    def jointly(self, rows: int, width: int, layer: int) -> int:
        """Training of something at ``layer`` on all rows at once."""
        above = self.learning(rows, width, self.layers - layer)
        return self.suffix(rows, width) + above + self.logits(rows * self.target)

    def factors(self, rank: int) -> int:
        """A change of one layer as float64 factors and as it is kept: factors, or the matrix where that is smaller."""
        thin = rank * (self.inner + self.out)
        return 2 * thin * _DOUBLE + min(thin, self.inner * self.out) * _FLOAT

    def solving(self, edits: int) -> int:
        """Keys, their solutions and a matrix of edits x edits with its factors, float64."""
        return (3 * edits * (self.inner + self.out) + 3 * edits**2) * _DOUBLE

    def matrix(self, copies: int) -> int:
        """Matrices of the shape of one down-projection, float32."""
        return copies * self.inner * self.out * _FLOAT


def too_large(found: Footprint, lm: LanguageModel) -> str | None:
    """The estimate, what most of it is for, and the limit, in words; None where it fits."""
    room = lm.room
    if room is None or found.total <= room:
        return None
    name, size = found.largest
    limit = "set by PALIMPSEST_MEMORY_LIMIT" if lm.memory_limit is not None else f"free on {lm.device} now"
    return f"about {_gib(found.total)}, most of it ({_gib(size)}) for {name}, and the limit is {_gib(room)} ({limit})"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.0f} MiB"
