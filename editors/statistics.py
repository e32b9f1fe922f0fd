"""Second moments of a layer's keys, C = E[k k^T]: which directions ordinary text uses, and so must be left alone.

    store = MomentStore(corpus=texts, cache_dir=folder)
    moment = store.get(lm, [5])[5]
    direction = moment.solve(key)          # C^-1 k, ROME (2202.05262, eq. 2)

Published code reads 100,000 documents because it uses the raw average. Here the average is shrunk towards its diagonal
by as much as its own sampling error asks for (Schaefer and Strimmer 2005), so that some ten thousand tokens do.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.passes import capture, key_width
from editors.prefixes import PrefixStore
from knowledge.errors import PalimpsestError
from language_model.model import LanguageModel
from language_model.text import Prompt

log = logging.getLogger(__name__)

Corpus = Iterable[Prompt] | Path | Callable[[], Iterable[Prompt]]
_FORMAT = "3"  # part of the cache key; raise it when the computation changes
_PLAIN = 5  # questions and completions without a context, for each statement
_RIDGE = 1e-4  # of the mean diagonal, added to the diagonal: dead neurons would make C singular


@dataclass(frozen=True)
class SecondMoment:
    """C of one layer, already shrunk.

    Attributes:
        matrix: (in, in) float64, symmetric and positive definite.
        tokens: how many keys were averaged.
        shrinkage: the weight of the diagonal target, 0 to 1.
    """

    matrix: Tensor
    tokens: int
    shrinkage: float

    @cached_property
    def cholesky(self) -> Tensor:
        return torch.linalg.cholesky(self.matrix)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues in rising order and their vectors, as columns."""
        values, vectors = torch.linalg.eigh(self.matrix)
        return values, vectors

    @property
    def scale(self) -> float:
        """The mean square of one neuron: what an identity matrix must be multiplied with to compare with C."""
        return float(self.matrix.diagonal().mean())

    def solve(self, keys: Tensor) -> Tensor:
        """C^-1 keys. (in,) or (in, n) in, the same shape out, float64."""
        columns = keys.double().reshape(keys.shape[0], -1)
        return torch.cholesky_solve(columns, self.cholesky).reshape(keys.shape)


class Accumulator:
    """Sums of k k^T over batches: products in float32, sums in float64, so that no batch is lost in the total."""

    def __init__(self, width: int) -> None:
        self.sum = torch.zeros(width, width, dtype=torch.float64)
        self.squares = 0.0  # sum over texts of |S_t|^2 off the diagonal, S_t the text's own sum
        self.tokens = 0
        self.squared_lengths = 0  # sum over texts of their tokens squared

    def add(self, keys: Tensor, mask: Tensor) -> None:
        """Takes in keys (texts, time, width), of which ``mask`` (texts, time) tells the ones that count."""
        kept = keys.float() * mask[..., None]
        rows = keys[mask].float()
        self.sum += (rows.T @ rows).double().cpu()
        # |sum_t k_t k_t^T|^2 of one text is the sum of the squared products of its keys.
        products = (kept @ kept.transpose(1, 2)).double()
        diagonal = kept.double().square().sum(1)
        self.squares += float(products.square().sum() - diagonal.square().sum())
        lengths = mask.sum(1)
        self.tokens += int(lengths.sum())
        self.squared_lengths += int(lengths.square().sum())

    def shrunk(self) -> SecondMoment:
        """C with off-diagonal entries shrunk by their estimated sampling error over their size.

        The best weight of a diagonal target is the sum of the entries' sampling variances over the sum of their
        squares, both off the diagonal. The variance is that between texts: tokens of one text are no independent draws.
        """
        if self.tokens == 0:
            raise PalimpsestError("The corpus for second moments holds no usable text; give a longer one.")
        mean = self.sum / self.tokens
        diagonal = mean.diagonal().clone()
        size = float(mean.square().sum() - diagonal.square().sum())
        error = (self.squares - self.squared_lengths * size) / self.tokens**2
        weight = min(1.0, max(0.0, error / size)) if size > 0 else 1.0
        matrix = (1.0 - weight) * mean
        matrix.diagonal().copy_(diagonal + max(_RIDGE * float(diagonal.mean()), torch.finfo(torch.float32).tiny))
        return SecondMoment(matrix, self.tokens, weight)


class MomentStore:
    """Computes second moments once per model, layer, corpus, dtype and sample size, and keeps them on disk.

    Args:
        corpus: texts (or chats), a text file with one text a line, or a function that gives texts. None takes the
            bundled model's own corpus, which is plain English about the world and serves other models too.
        cache_dir: where results are kept; None keeps them in this object only.
        sample_tokens: how many tokens to read at most; None takes 12 for each input of the layer, 40,000 at least.
    """

    def __init__(
        self, corpus: Corpus | None = None, cache_dir: Path | None = None, sample_tokens: int | None = None
    ) -> None:
        self.corpus = corpus
        self.cache_dir = cache_dir
        self.sample_tokens = sample_tokens
        self.prefixes = PrefixStore(cache_dir)  # texts that editors put before a prompt, kept in the same folder
        self._known: dict[str, SecondMoment] = {}
        self._samples: dict[str, tuple[list[list[int]], str]] = {}

    def get(
        self, lm: LanguageModel, layers: Sequence[int], progress: Callable[[float, str], None] | None = None
    ) -> dict[int, SecondMoment]:
        """The second moments of the inputs of these layers' down-projections, all missing ones in one pass.

        Raises:
            PalimpsestError: the corpus cannot be read or holds no text.
        """
        rows, digest = self._sample(lm)
        names = {layer: self._key(lm, layer, digest, sum(map(len, rows))) for layer in layers}
        missing = [layer for layer, name in names.items() if not self._load(name)]
        if missing:
            for layer, moment in self._compute(lm, missing, rows, progress).items():
                self._known[names[layer]] = moment
                self._save(names[layer], moment)
        return {layer: self._known[name] for layer, name in names.items()}

    @property
    def resident(self) -> int:
        """Bytes of the second moments that are in memory, with what was made of them."""
        parts = (part for moment in self._known.values() for part in (moment.matrix, *vars(moment).values()))
        tensors = {id(t): t for part in parts for t in (part if isinstance(part, tuple) else (part,))}
        return sum(t.numel() * t.element_size() for t in tensors.values() if isinstance(t, Tensor))

    def rows(self, lm: LanguageModel) -> list[list[int]]:
        """The corpus as token rows, up to the sample size."""
        return self._sample(lm)[0]

    def _compute(
        self,
        lm: LanguageModel,
        layers: list[int],
        rows: list[list[int]],
        progress: Callable[[float, str], None] | None,
    ) -> dict[int, SecondMoment]:
        sums = {layer: Accumulator(key_width(lm, layer)) for layer in layers}
        total, done = sum(map(len, rows)), 0
        with lm.overlaid(None), torch.no_grad():
            for batch in _batches(rows):
                for layer, taken in capture(lm, batch, layers).items():
                    mask = taken.mask.clone()
                    if mask.shape[1] > 1:
                        mask[:, 0] = False  # the first token's activations are unlike any other's and huge
                    sums[layer].add(taken.keys, mask)
                done += sum(map(len, batch))
                if progress:
                    progress(done / total, f"second moments: {done:,} of {total:,} tokens")
        moments = {layer: sums.pop(layer).shrunk() for layer in layers}  # not all sums beside all results in memory
        for layer, moment in moments.items():
            log.info("layer %d: %d keys, shrinkage %.3f", layer, moment.tokens, moment.shrinkage)
        return moments

    def _sample(self, lm: LanguageModel) -> tuple[list[list[int]], str]:
        """Token rows up to the sample size, and a hash of them (so of the corpus, the tokenizer and the size)."""
        if lm.fingerprint not in self._samples:
            widest = max(key_width(lm, layer) for layer in range(lm.num_layers))
            budget = self.sample_tokens or max(40_000, 12 * widest)
            length = min(lm.context, 256)
            rows: list[list[int]] = []
            taken = 0
            for prompt in read_corpus(self.corpus):
                ids = lm.codec.encode(prompt)[:length]
                if len(ids) > 1:
                    rows.append(ids)
                    taken += len(ids)
                if taken >= budget:
                    break
            if not rows:
                raise PalimpsestError("The corpus for second moments holds no usable text; give a longer one.")
            digest = hashlib.sha256(repr(rows).encode()).hexdigest()
            self._samples[lm.fingerprint] = rows, digest
        return self._samples[lm.fingerprint]

    def _key(self, lm: LanguageModel, layer: int, digest: str, tokens: int) -> str:
        parts = (_FORMAT, lm.fingerprint, str(layer), digest, str(lm.dtype), str(tokens))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]

    def _load(self, name: str) -> bool:
        if name in self._known:
            return True
        path = self._path(name)
        if path is None or not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata()
                matrix = file.get_tensor("moment").double()
        except Exception as error:  # a damaged cache is worth a line in the log, not the user's edit
            log.warning("Second moments in %s cannot be read (%s); they are computed again.", path, error)
            return False
        self._known[name] = SecondMoment(matrix, int(meta["tokens"]), float(meta["shrinkage"]))
        return True

    def _save(self, name: str, moment: SecondMoment) -> None:
        path = self._path(name)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"tokens": str(moment.tokens), "shrinkage": repr(moment.shrinkage)}
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            save_file({"moment": moment.matrix.contiguous()}, temporary, metadata=meta)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _path(self, name: str) -> Path | None:
        return self.cache_dir / f"moment-{name}.safetensors" if self.cache_dir else None


def _batches(rows: list[list[int]], tokens: int = 4096) -> Iterable[list[list[int]]]:
    """Rows of like length together, at most ``tokens`` a batch with padding."""
    ordered = sorted(rows, key=len)
    batch: list[list[int]] = []
    for row in ordered:
        if batch and (len(batch) + 1) * len(row) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def read_corpus(corpus: Corpus | None, limit: int = 200_000) -> Iterable[Prompt]:
    """The texts of a corpus given as :class:`MomentStore` takes it.

    Raises:
        PalimpsestError: the file cannot be read as UTF-8 text.
    """
    if corpus is None:
        return islice(_own_corpus(), limit)
    if isinstance(corpus, Path):
        try:
            lines = [line.strip() for line in corpus.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise PalimpsestError(
                f"The corpus file {corpus} cannot be read as UTF-8 text: {error}. Give the path of a plain text file."
            ) from error
        return lines[:: max(1, len(lines) // limit)]
    return islice(corpus() if callable(corpus) else corpus, limit)


def _own_corpus() -> Iterator[Prompt]:
    """What the bundled model reads: mostly single statements and questions, some chats with facts before the question.

    Its training mix counts by examples, and most of its tokens are facts in long chats; C made of them lets an edit
    disturb plain questions twice as much as it should.
    """
    from language_model.bundled.corpus import Corpus as Examples
    from language_model.bundled.corpus import plain, texts

    alone = plain(seed=0)
    for number, example in enumerate(Examples(seed=0)):
        if number % 1000 == 0:
            statements = texts(1000, seed=number)
        yield statements[number % 1000]
        yield from (each.read for each in islice(alone, _PLAIN))
        if number % 2 == 0:
            yield example.read
