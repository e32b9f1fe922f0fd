"""Snapshots of the index on disk: files that are either whole or not used.

``index-<seq>.faiss`` is written to a temporary file, fsynced and renamed; the manifest, which names it and its
SHA-256, follows in the same way and last. A crash at any moment leaves the older manifest with its file. A snapshot
that does not match its manifest is never loaded: the index is rebuilt from the vectors in the database.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from memory.compressed import CompressedIndex, Fetch
from memory.errors import IndexFileError
from memory.index import VectorIndex

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


class Snapshots:
    """The snapshot folder of one index.

    Args:
        fetch: full vectors by id, which a compressed index needs.
    """

    def __init__(self, folder: Path, embedder_id: str, dim: int, fetch: Fetch | None = None) -> None:
        self.folder = folder
        self.embedder_id = embedder_id
        self.dim = dim
        self.fetch = fetch

    def save(self, data: bytes, count: int, factory: str, seq: int) -> None:
        """Writes an index of ``count`` vectors, level with event ``seq``; a failure leaves the older one as it was.

        Raises:
            IndexFileError: the folder cannot be written (the facts themselves are not concerned).
        """
        name = f"index-{seq}.faiss"
        manifest = {
            "seq": seq,
            "ntotal": count,
            "sha256": hashlib.sha256(data).hexdigest(),
            "embedder": self.embedder_id,
            "dim": self.dim,
            "factory": factory,
            "file": name,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / name, data)
            _write(self.folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
        except OSError as error:
            raise IndexFileError(
                f"The index snapshot could not be written to {self.folder}: {error.strerror or error}. The facts are "
                "safe in the database; the index will be rebuilt from them at the next start."
            ) from error
        for old in self.folder.glob("index-*.faiss"):
            if old.name != name:
                with suppress(OSError):
                    old.unlink()

    def load(self) -> tuple[VectorIndex, int] | None:
        """The last snapshot and its event, or None (said in the log) when there is none that can be trusted."""
        path = self.folder / _MANIFEST
        if not path.exists():
            return None
        try:
            return self._load(path)
        except Exception as error:  # whatever is wrong with the files, the database has the truth
            log.warning("The index snapshot in %s is not used: %s. The index is rebuilt.", self.folder, error)
            return None

    def _load(self, path: Path) -> tuple[VectorIndex, int]:
        manifest = json.loads(path.read_bytes())
        if manifest["embedder"] != self.embedder_id or manifest["dim"] != self.dim:
            raise IndexFileError(f"it is of the encoder {manifest['embedder']}")
        name = str(manifest["file"])
        if Path(name).name != name:
            raise IndexFileError("its manifest names a file elsewhere")
        data = (self.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise IndexFileError("its checksum does not match")
        index: VectorIndex
        if manifest["factory"] == CompressedIndex.factory and self.fetch is not None:
            index = CompressedIndex.restored(data, self.dim, self.fetch)
        elif manifest["factory"] == VectorIndex.factory:
            index = VectorIndex.from_bytes(data, self.dim)
        else:
            raise IndexFileError(f"it is of the unknown type {manifest['factory']}")
        if len(index) != manifest["ntotal"]:
            raise IndexFileError(f"it holds {len(index)} vectors instead of {manifest['ntotal']}")
        return index, int(manifest["seq"])

    def clear(self) -> None:
        """Forgets the snapshot, manifest first."""
        for path in (self.folder / _MANIFEST, *self.folder.glob("index-*.faiss")):
            with suppress(FileNotFoundError):
                path.unlink()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
