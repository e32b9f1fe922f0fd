"""Texts put before a prompt so that an edit does not depend on the prompt standing alone (2202.05262, section 3.1).

    prefixes = sample_prefixes(lm, count=20, lengths=(5, 10), seed=0)      # ("", "The first of", ...)

They are sampled from the model itself, so that they look like what it has seen; the bare prompt (an empty prefix)
comes first. Sampling uses a generator of its own: the same seed gives the same texts, and nobody's random state moves.

    store = PrefixStore(folder)
    store.get(lm, count=20, lengths=(5, 10), seed=0)         # the same, sampled once a model
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from language_model.model import LanguageModel

log = logging.getLogger(__name__)

_FORMAT = "1"  # part of the cache key; raise it when sampling changes
_OPENERS = ("The", "In", "It", "Because", "I", "You", "A", "There", "He", "When")  # MEMIT's kind: plain first words
_UNWANTED = re.compile(r"[{}<>|\[\]]|\s+")


def sample_prefixes(
    lm: LanguageModel, *, count: int = 20, lengths: Sequence[int] = (5, 10), seed: int = 0, temperature: float = 1.0
) -> tuple[str, ...]:
    """``count`` prefixes and, first, the empty one.

    Args:
        lengths: tokens to sample, in equal shares.
        seed: of the sampling.
    """
    if count <= 0:
        return ("",)
    generator = torch.Generator().manual_seed(seed)
    texts: list[str] = []
    shares = [count // len(lengths) + (index < count % len(lengths)) for index in range(len(lengths))]
    with lm.overlaid(None), torch.no_grad():
        for length, share in zip(lengths, shares, strict=True):
            openers = [_OPENERS[index % len(_OPENERS)] for index in range(len(texts), len(texts) + share)]
            texts += _continue(lm, openers, length, generator, temperature)
    unique = dict.fromkeys(text for text in texts if text)
    return ("", *unique)


def _continue(
    lm: LanguageModel, openers: Sequence[str], length: int, generator: torch.Generator, temperature: float
) -> list[str]:
    """Samples ``length`` tokens after each opener; openers of different token counts are grouped, so nothing is
    padded.
    """
    encoded = [lm.codec.encode(opener) for opener in openers]
    banned = sorted({index for index in lm.tokenizer.all_special_ids if index is not None} | lm.end_ids)
    results: list[str] = [""] * len(openers)
    for size in sorted({len(ids) for ids in encoded}):
        chosen = [index for index, ids in enumerate(encoded) if len(ids) == size]
        ids = torch.tensor([encoded[index] for index in chosen], device=lm.device)
        for _ in range(length):
            logits = lm.run_model(input_ids=ids, use_cache=False).logits[:, -1].float().cpu() / temperature
            logits[:, banned] = float("-inf")
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            ids = torch.cat([ids, drawn.to(ids.device)], 1)
        for index, row in zip(chosen, ids.tolist(), strict=True):
            text = lm.tokenizer.decode(row, skip_special_tokens=True)
            results[index] = _UNWANTED.sub(" ", text.replace("�", "")).strip()
    return results


class PrefixStore:
    """Prefixes sampled before, by model, precision and settings: in memory, and in a folder where there is one.

    Args:
        folder: where they are kept; None keeps them in this object only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[str, tuple[str, ...]] = {}

    def get(
        self,
        lm: LanguageModel,
        *,
        count: int = 20,
        lengths: Sequence[int] = (5, 10),
        seed: int = 0,
        temperature: float = 1.0,
    ) -> tuple[str, ...]:
        """What :func:`sample_prefixes` gives for the same arguments."""
        if count <= 0:
            return ("",)
        settings = (_FORMAT, lm.fingerprint, str(lm.dtype), count, tuple(lengths), seed, temperature)
        name = hashlib.sha256(repr(settings).encode()).hexdigest()[:32]
        if name not in self._known:
            self._known[name] = self._read(name) or self._sample(
                lm, name, count=count, lengths=lengths, seed=seed, temperature=temperature
            )
        return self._known[name]

    def _sample(
        self, lm: LanguageModel, name: str, *, count: int, lengths: Sequence[int], seed: int, temperature: float
    ) -> tuple[str, ...]:
        texts = sample_prefixes(lm, count=count, lengths=lengths, seed=seed, temperature=temperature)
        path = self._path(name)
        if path is not None:
            part = path.with_name(f"{path.name}.{os.getpid()}.part")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
                part.replace(path)
            except OSError as error:  # a full disk costs the next session some seconds, not this one its edit
                log.warning("Prefixes cannot be kept in %s: %s", path, error)
                part.unlink(missing_ok=True)
        return texts

    def _read(self, name: str) -> tuple[str, ...] | None:
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        try:
            texts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            texts = None
        if isinstance(texts, list) and texts[:1] == [""] and all(isinstance(text, str) for text in texts):
            return tuple(texts)
        log.warning("Prefixes in %s cannot be read; they are sampled again.", path)
        return None

    def _path(self, name: str) -> Path | None:
        return self.folder / f"prefixes-{name}.json" if self.folder else None
