"""The measures, by three protocols that are never mixed in one column.

- **generation**: the model answers freely and greedily; right if the answer, normalised, is the expected one or an
  alias. What a user sees, and far lower than the other two for the same edit (2502.11177), so the headline.
- **probability** (2202.05262, section 4.1): right if the expected object is more probable than its competitor.
- **token accuracy** (KnowEdit, 2401.01286): share of the expected tokens that are the most probable next token, the
  expected tokens before them given.

A rate comes with the number of cases and a bootstrap 95 % interval.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from knowledge.text import answer_matches

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Cell:
    """A mean with its bootstrap 95 % interval over ``n`` cases; value None where there was nothing to measure."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


class Scored(Protocol):
    """What scoring a target gives; see :class:`language_model.scoring.TargetScore`."""

    @property
    def mean_logprob(self) -> float: ...

    @property
    def argmax_hits(self) -> tuple[bool, ...]: ...


def interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Cell:
    """The mean of the values and the percentile bootstrap interval (Efron 1979); None of all for no values.

    One case has no spread to resample, so its interval is as wide as a rate can be: 0 to 1, where the value is a rate.
    """
    n = len(values)
    if n == 0:
        return Cell()
    mean = math.fsum(values) / n
    if n == 1:
        return Cell(mean, 0.0, 1.0, 1) if 0 <= mean <= 1 else Cell(mean, None, None, 1)
    if min(values) == max(values):
        if values[0] in (0.0, 1.0):  # resampling cannot leave the value; the rule of three gives the honest bound
            bound = min(1.0, 3 / n)
            return Cell(mean, 1 - bound, 1.0, n) if mean == 1 else Cell(mean, 0.0, bound, n)
        return Cell(mean, mean, mean, n)
    rng = random.Random(seed)
    means = sorted(math.fsum(rng.choices(values, k=n)) / n for _ in range(resamples))
    return Cell(mean, means[int(0.025 * resamples)], means[min(resamples - 1, int(0.975 * resamples))], n)


def rate(outcomes: Sequence[bool]) -> Cell:
    """The share of True, with its interval."""
    return interval([float(outcome) for outcome in outcomes])


def generation_right(answer: str, expected: str, aliases: Sequence[str] = ()) -> bool:
    """True where the whole answer is the expected one or an alias, normalised."""
    return answer_matches(answer, expected, aliases)


def probability_right(expected: Scored, competing: Scored) -> bool:
    """True where the expected target is the more probable one, by mean log-probability per token."""
    return expected.mean_logprob > competing.mean_logprob


def token_accuracy(expected: Scored) -> float:
    """Share of the expected tokens that are the argmax, the earlier ones given."""
    hits = expected.argmax_hits
    return sum(hits) / len(hits) if hits else 0.0


def harmonic_mean(values: Sequence[float]) -> float:
    """The score S of 2202.05262: ES, PS and NS in one figure; 0 as soon as one of them is."""
    if not values or min(values) <= 0:
        return 0.0
    return len(values) / math.fsum(1 / value for value in values)


def ngram_entropy(tokens: Sequence[object], n: int) -> float:
    """Entropy in bits of the text's n-grams; 0 for a text of fewer than n tokens."""
    grams = Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))
    total = grams.total()
    return -math.fsum(count / total * math.log2(count / total) for count in grams.values()) if total else 0.0


def fluency(tokens: Sequence[object]) -> float:
    """100 x the mean of 2/3 bigram entropy and 4/3 trigram entropy (2202.05262, appendix; KnowEdit's "fluency").

    About 600 for 100 tokens of English, falling towards 0 for text that repeats itself. It grows with the length, so
    only texts of about one length may be compared.
    """
    return 100 * (2 / 3 * ngram_entropy(tokens, 2) + 4 / 3 * ngram_entropy(tokens, 3)) / 2
