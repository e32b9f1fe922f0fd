"""SERAC's counterfactual model: (edit, question) to an answer that obeys the edit (2206.06520, section 4).

The paper fine-tunes a small language model for this. Ours is far smaller and says so: a **pointer**. It never writes
text of its own but chooses which part of the edit answers the question:

| choice  | question                                         | answer                                    |
| ------- | ------------------------------------------------ | ----------------------------------------- |
| object  | "Where is the Eiffel Tower?"                     | the edit's object                         |
| confirm | "Is the Eiffel Tower in Rome?"                   | Yes, or No where another object is named  |
| subject | "Which landmark stands in Rome?"                 | the edit's subject                        |

A linear softmax on the encoder's vector of the question, subject and object masked, and on which of the two are named.
Trained by :mod:`memory.counterfactual_training` on the bundled world's wordings; a few KiB of safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from memory.embedder import Embedder, Vectors
from memory.errors import IndexFileError
from memory.mentions import locate
from memory.schema import StoredFact
from memory.store import FactStore

Choice = Literal["object", "confirm", "subject"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
SHIPPED = Path(__file__).parent / "data" / "counterfactual.safetensors"
SUBJECT, OBJECT = "it", "that"  # what stands for them in a masked question
_NAMED = 3.0  # scale of the features beside the vector, so that the softmax does not have to grow for them


@dataclass(frozen=True, slots=True)
class Case:
    """A question about an edit."""

    query: str
    subject: str
    object: str
    subject_names: tuple[str, ...] = ()
    object_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: str, fact: StoredFact, store: FactStore) -> Case:
        """A question about a stored fact, with all names of its subject and object."""
        names = store.alias_table([fact])[fact.subject_key]
        objects = (*fact.object_aliases, *store.lexicon.aliases_of(fact.object))
        return cls(query, fact.subject, fact.object, names, objects)


class Counterfactual:
    """The pointer.

    >>> Counterfactual.shipped(embedder).answer(Case("Is Big Ben in Oslo?", "Big Ben", "Rome"))
    'No'
    """

    def __init__(self, embedder: Embedder, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.embedder = embedder
        self.weight = weight  # (dim + 3, choices)
        self.bias = bias  # (choices,)

    @classmethod
    def shipped(cls, embedder: Embedder) -> Counterfactual:
        return cls.load(SHIPPED, embedder)

    @classmethod
    def load(cls, path: Path, embedder: Embedder) -> Counterfactual:
        """The trained pointer for this encoder.

        Raises:
            IndexFileError: there is none, or it belongs to another encoder.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
                encoder = json.loads((file.metadata() or {})["counterfactual"])["encoder"]
        except (OSError, SafetensorError, KeyError) as error:
            raise IndexFileError(
                f"SERAC's counterfactual model {path} cannot be read ({error}). "
                "Run 'python -m app train serac' to make it."
            ) from error
        if encoder != embedder.id:
            raise IndexFileError(
                f"SERAC's counterfactual model was trained for the encoder {encoder}, not for {embedder.id}. Use that "
                "encoder, or run 'python -m app train serac' for this one."
            )
        return cls(embedder, weight.astype(np.float32), bias.astype(np.float32))

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, NDArray[Any]] = {
            "weight": self.weight.astype(np.float16),
            "bias": self.bias.astype(np.float32),
        }
        save_file(tensors, str(path), {"counterfactual": json.dumps({"encoder": self.embedder.id})})
        path.chmod(0o644)

    def choose(self, cases: Sequence[Case]) -> list[tuple[Choice, float]]:
        """Which part of the edit answers each question, with its probability."""
        if not cases:
            return []
        texts, named = zip(*(masked(case) for case in cases), strict=True)
        inputs = features(self.embedder.query(*texts), np.array(named, dtype=np.float32))
        logits = inputs @ self.weight + self.bias
        logits -= logits.max(1, keepdims=True)
        odds = np.exp(logits)
        odds /= odds.sum(1, keepdims=True)
        return [(CHOICES[int(row.argmax())], float(row.max())) for row in odds]

    def answer(self, case: Case) -> str:
        """What the edit says to the question."""
        choice, _ = self.choose([case])[0]
        if choice == "subject":
            return case.subject
        if choice == "confirm":
            return "Yes" if locate(case.query, case.object, case.object_names) is not None else "No"
        return case.object


def masked(case: Case) -> tuple[str, tuple[float, float, float]]:
    """The question with subject and object masked; and whether the subject, the object, both are named."""
    text = case.query
    there = []
    for name, names, filler in (
        (case.object, case.object_names, OBJECT),
        (case.subject, case.subject_names, SUBJECT),
    ):
        span = locate(text, name, names)
        there.append(span is not None)
        if span is not None:
            text = span.mask(text, filler)
    obj, subject = there
    return text[:1].upper() + text[1:], (float(subject), float(obj), float(subject and obj))


def features(vectors: Vectors, named: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the softmax sees, shape (n, dim + 3)."""
    out: NDArray[np.float32] = np.concatenate((vectors * 10, named * _NAMED), axis=1).astype(np.float32)
    return out
