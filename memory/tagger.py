"""Which relation each word of a question speaks of, in its context, and whether it is what the question asks for.

    tagger = RelationTagger.shipped(embedder)
    tagger.read("If I rang it, which prefix would I put in front?", [(5, 9), (20, 26)]).shares   # (relations, words)

The words of relations (:mod:`memory.relation_words`) know a word by its stem, whatever stands around it, and nothing
of words that no wording has. Here a small network looks at the sentence encoder's state of each token, so "put in
front" beside "ring" says *calling code*. It is trained on chains of known wordings nested into one another, in which
it is known what each word belongs to (:mod:`memory.tagger_training`); the entity is masked.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from memory.embedder import Embedder, TokenStates
from memory.errors import IndexFileError
from memory.products import product

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "data" / "tagger.safetensors"
Shares = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tagged:
    """What the words of a question speak of.

    Attributes:
        shares: probabilities, shape (relations, words); what is missing to 1 in a column is that the word says none.
        asked: probability that a word belongs to the relation that is asked for, not to one on the way, (words,).
    """

    shares: Shares
    asked: Shares


class RelationTagger:
    """Reads words in their context.

    Args:
        groups: names of the relations; after them comes the class of words that say no relation.
        hidden, hidden_bias: (dim, units), (units,); a layer of ReLU units.
        out, out_bias: (units, groups + 2), (groups + 2,); the last column says whether a word is what is asked for.
    """

    def __init__(
        self, embedder: Embedder, groups: Sequence[str], hidden: Shares, hidden_bias: Shares, out: Shares,
        out_bias: Shares,
    ) -> None:  # fmt: skip
        self.embedder, self.groups = embedder, list(groups)
        self.hidden, self.hidden_bias, self.out, self.out_bias = hidden, hidden_bias, out, out_bias
        self._cache: OrderedDict[str, tuple[Shares, TokenStates]] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def shipped(cls, embedder: Embedder) -> RelationTagger | None:
        """The trained one for this encoder, or None (said in the log): then the stems of the words speak alone."""
        return _shipped(embedder)

    @classmethod
    def load(cls, path: Path, embedder: Embedder) -> RelationTagger | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                meta = json.loads((file.metadata() or {})["tagger"])
                made_for, groups = meta["encoder"], meta["groups"]
                names = ("hidden", "hidden_bias", "out", "out_bias")
                parts = [file.get_tensor(name).astype(np.float32) for name in names]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise IndexFileError(
                f"The relation tagger {path} cannot be read ({error}). Run 'python -m app train chains' to make it."
            ) from error
        if made_for != embedder.id:
            log.info(
                "the relation tagger is for %s; with %s, questions are read by stems alone",
                made_for,
                embedder.id,
            )
            return None
        return cls(embedder, groups, *parts)

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        names = ("hidden", "hidden_bias", "out", "out_bias")
        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float16) for name in names}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(path), {"tagger": json.dumps({"encoder": self.embedder.id, "groups": self.groups})})
        path.chmod(0o644)

    def read(self, text: str, words: Sequence[tuple[int, int]]) -> Tagged:
        """What the words of a text speak of; ``words`` are the first and last letter (exclusive) of each."""
        found, tokens = self._tokens(text)
        out = np.zeros((len(self.groups) + 2, len(words)), dtype=np.float32)
        for at, (start, end) in enumerate(words):
            inside = [row for row, (first, last) in enumerate(tokens.offsets) if first < end and last > start]
            if inside:
                out[:, at] = found[inside].mean(0)
        return Tagged(out[:-2], out[-1])

    def _tokens(self, text: str) -> tuple[Shares, TokenStates]:
        with self._lock:
            if text in self._cache:
                return self._cache[text]
        tokens = (self.embedder.tokens([text]) or [])[0]
        found = (self.probabilities(tokens.states), tokens)
        with self._lock:
            self._cache[text] = found
            while len(self._cache) > 256:
                self._cache.popitem(last=False)
        return found

    def probabilities(self, states: Shares) -> Shares:
        """Of each token, shape (tokens, groups + 2): of every relation, of none, and of being what is asked for."""
        units = np.maximum(product(states, self.hidden) + self.hidden_bias, 0)
        logits = product(units, self.out) + self.out_bias
        found: Shares = np.exp(logits[:, :-1] - logits[:, :-1].max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        return np.concatenate([found, 1 / (1 + np.exp(-logits[:, -1:]))], axis=1)


@lru_cache(maxsize=4)
def _shipped(embedder: Embedder) -> RelationTagger | None:
    try:
        return RelationTagger.load(SHIPPED, embedder)
    except IndexFileError as error:
        log.warning("%s Until then questions are read by the stems of their words alone.", error)
        return None
