"""What an edit takes in memory, estimated before it is begun, so that too large a one is refused and not killed.

    found = editor.footprint(lm, edits, settings, earlier)
    found.host, found.device         # bytes beside the loaded model
    too_large(found, lm)             # None, or why there is no room for it

An estimate counts what the method keeps to its end and its largest stage on top. Second moments, keys and solves are
float64 in main memory whatever the model is on; passes through the model are where it is. The counts of activations
are those of eager attention with frozen weights; ``python -m benchmarks.editors speed`` prints the estimate beside the
measured peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import torch
from torch import nn

from editors.problems import CHAT_PREFIXES
from editors.rewrites import forms_of, tokenise
from knowledge.edit import Edit
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.room import free_bytes

_DOUBLE, _FLOAT = 8, 4
_PASS_TOKENS = 8192  # in a pass that reads keys (editors.keys)
_LARGEST_READ = 24  # edits of which the rows are measured, the longest by characters
_SLACK = 1.25  # for what allocators and libraries hold back (measured: 1.2 for MEMIT at GPT-2 small's size)
_PREFIX = 4  # tokens that a prefix brings with it beside its own: an opening word, a full stop


@dataclass(frozen=True)
class Need:
    """Bytes for one purpose, in main memory and where the model is."""

    what: str
    host: int = 0
    device: int = 0

    @property
    def total(self) -> int:
        return self.host + self.device


@dataclass(frozen=True)
class Footprint:
    """What an edit needs.

    Attributes:
        kept: there until the edit is done; adds up.
        stages: one after another; the largest counts.
    """

    kept: tuple[Need, ...] = ()
    stages: tuple[Need, ...] = ()

    @property
    def host(self) -> int:
        return self._most("host")

    @property
    def device(self) -> int:
        return self._most("device")

    @property
    def total(self) -> int:
        """Where the model is in main memory too."""
        return self._most("total")

    def _most(self, side: str) -> int:
        part = attrgetter(side)
        return int(_SLACK * (sum(map(part, self.kept)) + max(map(part, self.stages), default=0)))


class Sizes:
    """The sizes of a model and of some edits' rows, and what passes over them take, in bytes.

    Args:
        together: how many of the edits are worked on at once; all by default.
    """

    def __init__(self, lm: LanguageModel, edits: Sequence[Edit], together: int | None = None) -> None:
        self.lm, self.edits = lm, edits
        self.together = len(edits) if together is None else together
        row = lm.architecture
        config = lm.model.config.get_text_config()
        self.layers, self.hidden, self.vocab = lm.num_layers, lm.hidden_size, lm.vocab_size
        self.heads = int(getattr(config, "num_attention_heads", 0) or max(1, self.hidden // 64))
        downs = [_shape(lm.module(row.down(layer)), (4 * self.hidden, self.hidden)) for layer in range(self.layers)]
        self.inner, self.out = max(shape[0] for shape in downs), max(shape[1] for shape in downs)
        ups = [_shape(lm.module(name), (self.hidden, self.inner)) for name in row.ups(0)]
        self.read = sum(shape[1] for shape in ups)  # twice the inner width where there is a gate
        self.element = lm.dtype.itemsize

    @cached_property
    def _lengths(self) -> tuple[int, int, int]:
        """Tokens of the longest row, of the longest part of a row from its subject on, and of the longest target."""
        longest = sorted(self.edits, key=lambda edit: len(edit.statement), reverse=True)[:_LARGEST_READ]
        forms = [(form, edit.target_new) for edit in longest for form in forms_of(self.lm, edit)]
        rows = [tokenise(self.lm, form, form.target_ids(self.lm, target)) for form, target in forms]
        tails = (len(row.ids) - row.subject for row in rows)
        return max(len(row.ids) for row in rows), max(tails), max(len(row.target) for row in rows)

    def rows(self, prefixes: int = 0) -> int:
        """Rows of the edits that are worked on at once: bare and behind prefixes, completion and chat."""
        forms = len(forms_of(self.lm, self.edits[0]))
        return self.together * (1 + prefixes + (forms - 1) * (1 + min(prefixes, CHAT_PREFIXES)))

    def width(self, prefix: int = 0) -> int:
        """Tokens of the longest row behind a prefix of so many tokens."""
        return min(self.lm.context, self._lengths[0] + (prefix + _PREFIX if prefix else 0))

    @property
    def target(self) -> int:
        """Tokens of the longest target."""
        return self._lengths[2]

    # ------------------------------------------------------------------------------------------- passes (device)

    def passing(self, rows: int, width: int) -> int:
        """A pass without gradients: one block's activations at a time."""
        each = 6 * self.hidden + 2 * self.read + self.inner + 2 * self.heads * width
        return rows * width * each * self.element

    def learning(self, rows: int, width: int, layers: int, attended: int | None = None) -> int:
        """A pass through so many layers that keeps what its gradient needs, with one block's work on top.

        Frozen linear maps keep nothing; norms, attention and the feed-forward's nonlinearity do.

        Args:
            attended: tokens that each one attends to, where that is not ``width``.
        """
        attended = attended or width
        gated = self.inner if self.read > self.inner else 0
        each = 10 * self.hidden + self.read + gated + 2 * self.heads * attended
        return rows * width * each * layers * self.element + self.passing(rows, width)

    def logits(self, positions: int) -> int:
        """Logits with their softmax and gradient, float32."""
        return 3 * positions * self.vocab * _FLOAT

    def suffix(self, rows: int, width: int) -> int:
        """What lies below a layer, computed once for rows that are all there together."""
        return self.passing(rows, width) + rows * width * (5 * self.hidden + self.inner) * self.element

    def jointly(self, rows: int, width: int, layer: int) -> int:
        """Training of something at ``layer`` on all rows at once."""
        above = self.learning(rows, width, self.layers - layer)
        return self.suffix(rows, width) + above + self.logits(rows * self.target)

    def values(self, rows: int, width: int, layer: int, tokens: int) -> Need:
        """The search for target values above ``layer``: as many rows at once as ``tokens`` allow, one edit at least;
        each from its subject on.
        """
        at_once = min(rows, max(rows // max(1, self.together), tokens // width))
        above, tail = self.layers - 1 - layer, min(width, self._lengths[1] + 4)
        cached = at_once * width * 2 * self.hidden * above * self.element
        moved = self.learning(at_once, tail, above, attended=width)
        taken = rows * (self.inner + 2 * self.hidden) * _DOUBLE  # the keys, which are still there
        whole = self.suffix(at_once, width) + cached + moved + self.logits(at_once * self.target)
        return Need("the search for target values", host=taken, device=whole)

    def reading_keys(self, rows: int, width: int) -> Need:
        """A pass for keys, and the activations at all rows' subjects (twice while they are put together)."""
        at_once = min(rows, max(1, _PASS_TOKENS // width))
        kept = at_once * width * (self.inner + 2 * self.hidden) * self.element
        found = 2 * rows * (self.inner + 2 * self.hidden) * _DOUBLE
        return Need("reading keys", host=found, device=self.passing(at_once, width) + kept)

    # --------------------------------------------------------------------------------------------- matrices (host)

    def moments(self, layers: int, *, factors: int = 1, resident: int = 0) -> Need:
        """C of so many layers in float64 and what is made of each, and the work beside them.

        Args:
            factors: matrices of C's size made of each: its Cholesky factor, its eigenvectors.
            resident: bytes of these that are in memory already.
        """
        square = self.inner**2 * _DOUBLE
        kept = max(0, (1 + factors) * layers * square - resident)
        work = 3 * square if kept else 0
        return Need("second moments", host=kept + work, device=self.inner**2 * (_FLOAT + _DOUBLE) if kept else 0)

    def protecting(self, earlier: int, layers: int) -> Need:
        """Keys of so many earlier facts at some layers, in every form, and a matrix of facts x facts."""
        rows = earlier * len(forms_of(self.lm, self.edits[0]))
        keys = 2 * rows * (self.inner + 2 * self.hidden) * layers * _DOUBLE
        return Need("the keys of earlier facts", host=keys + 3 * rows**2 * _DOUBLE)

    def changes(self, rank: int, layers: int = 1) -> Need:
        """Changes of some layers as float64 factors and as they are kept: factors, or matrices where these are
        smaller.
        """
        thin = rank * (self.inner + self.out)
        return Need("the changes", host=layers * (2 * thin * _DOUBLE + min(thin, self.inner * self.out) * _FLOAT))

    def solving(self, edits: int) -> Need:
        """Keys, their solutions and a matrix of edits x edits with its factors, float64."""
        return Need("solving", host=(3 * edits * (self.inner + self.out) + 3 * edits**2) * _DOUBLE)

    def matrix(self, copies: int) -> int:
        """Matrices of the shape of one down-projection, float32."""
        return copies * self.inner * self.out * _FLOAT


def too_large(found: Footprint, lm: LanguageModel) -> str | None:
    """The estimate, what the largest part of it is for, and the limit, in words; None where it fits."""
    limit = "set by PALIMPSEST_MEMORY_LIMIT" if lm.memory_limit is not None else f"free on {lm.device} now"
    sides = [(found.total, lm.room, limit, "total")]
    if lm.device.type != "cpu":
        main = free_bytes(torch.device("cpu"))
        sides = [(found.device, lm.room, limit, "device"), (found.host, main, "free in main memory now", "host")]
    for size, room, where, side in sides:
        if room is not None and size > room:
            part = attrgetter(side)
            worst = max((*found.kept, *found.stages), key=part)
            largest = f"the largest part of it ({_words(part(worst))}) for {worst.what}"
            return f"about {_words(size)}, {largest}, and the limit is {_words(room)} ({where})"
    return None


def _words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _shape(module: nn.Module, usual: tuple[int, int]) -> tuple[int, int]:
    """(in, out) of a linear map, quantised ones included; ``usual`` where it does not say."""
    for names in (("in_features", "out_features"), ("nx", "nf")):
        width_in, width_out = (getattr(module, name, None) for name in names)
        if isinstance(width_in, int) and isinstance(width_out, int):
            return width_in, width_out
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() == 2:
        rows, columns = weight_in_out(module).shape
        return int(rows), int(columns)
    return usual
