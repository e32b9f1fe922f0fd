"""The edit memory as LangChain sees it: a ``VectorStore`` and a retriever that knows when to keep silent.

>>> memory = EditMemory(store)
>>> memory.add_texts(["The Eiffel Tower is located in Rome."])
>>> memory.as_retriever(search_kwargs={"k": 3})          # nearest facts, always
>>> EditRetriever(gate=gate).invoke("Where is the Eiffel Tower?")   # facts in scope only; [] for anything else

A document is a fact: its text is parsed, so two documents about one (subject, relation) supersede each other. A text
that says no fact is kept as a note. Documents keep the ids and the metadata they came with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from pydantic import ConfigDict
from sqlalchemy import Connection, select

from knowledge.errors import PalimpsestError
from knowledge.parsing import parse_statement
from memory import schema
from memory.embedder import Embedder, Vectors
from memory.gate import Gate
from memory.lexicon import Wording
from memory.schema import DEFAULT_NAMESPACE, MULTI, StoredFact
from memory.store import FactStore
from memory.view import Hit, visible
from memory.writing import Draft


class StoreEmbeddings(Embeddings):
    """A store's encoder as LangChain ``Embeddings``."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [list(map(float, vector)) for vector in self.embedder.encode(texts)]

    def embed_query(self, text: str) -> list[float]:
        return list(map(float, self.embedder.query(text)[0]))


class LangChainEmbedder(Embedder):
    """Any LangChain ``Embeddings`` as the encoder of a store (the shipped gate needs the default encoder)."""

    def __init__(self, embeddings: Embeddings, name: str | None = None) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.id = name or f"langchain:{type(embeddings).__name__}"
        self.dim = len(embeddings.embed_query("dimension"))

    def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.asarray(self.embeddings.embed_documents(list(texts)), dtype=np.float32)
        out: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        return out


class EditMemory(VectorStore):
    """A namespace of a fact store as a LangChain vector store."""

    def __init__(self, store: FactStore, *, namespace: str = DEFAULT_NAMESPACE, source: str = "langchain") -> None:
        self.store = store
        self.namespace = namespace
        self.source = source

    @property
    def embeddings(self) -> Embeddings:
        return StoreEmbeddings(self.store.embedder)

    # ------------------------------------------------------------------------------------------------ writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Stores texts as facts; an id that is in use gets the new text.

        Returns:
            The documents' ids, in order.
        """
        rows = list(texts)
        metas = metadatas or [{} for _ in rows]
        names = [given or uuid4().hex for given in (ids or [None] * len(rows))]  # type: ignore[list-item]
        if not len(rows) == len(metas) == len(names):
            raise ValueError(f"{len(rows)} texts, {len(metas)} metadata and {len(names)} ids do not match.")
        if ids:
            self.delete(ids)
        drafts = [Draft(self._word(text), self.namespace, source=self.source) for text in rows]
        written = self.store.add_many(drafts, actor="langchain")
        with self.store.database.write() as connection:
            for number, (name, meta) in enumerate(zip(names, metas, strict=True)):
                names[number] = _remember(connection, self.namespace, name, written[number].fact_id, meta)
        return names

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        ids = kwargs.pop("ids", None) or [document.id or uuid4().hex for document in documents]
        texts, metas = [d.page_content for d in documents], [dict(d.metadata) for d in documents]
        return self.add_texts(texts, metas, ids=ids, **kwargs)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Retires the facts of these documents (the history stays); unknown ids are passed over."""
        for name in ids or ():
            with self.store.database.read() as connection:
                fact_id = _fact_id(connection, self.namespace, name)
            if fact_id is None:
                continue
            if self.store.get(fact_id).status != schema.RETIRED:
                self.store.retire(fact_id, reason="deleted", actor="langchain")
            with self.store.database.write() as connection:
                column = schema.document.c
                mine = (column.namespace == self.namespace) & (column.id == name)
                connection.execute(schema.document.delete().where(mine))
        return True

    def _word(self, text: str) -> Wording:
        lexicon = self.store.lexicon
        try:
            parsed = parse_statement(text, lexicon.relations)
            return lexicon.word(parsed.subject, parsed.relation, parsed.object, prompt=parsed.prompt, statement=text)
        except PalimpsestError:  # no fact in it: kept as a note about itself
            short = " ".join(text.split())[:250] or "(empty)"
            return lexicon.word(
                short, "note", short, prompt="Note on {}:", statement=text[:1000] or short, cardinality=MULTI
            )

    # ------------------------------------------------------------------------------------------------ reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        with self.store.database.read() as connection:
            found = [(name, _fact_id(connection, self.namespace, name)) for name in ids]
        facts = [(name, self.store.get(fact_id)) for name, fact_id in found if fact_id is not None]
        return [document for name, fact in facts if fact.current for document in self._documents([fact], name)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """Documents with their cosine, best first."""
        return self._scored(self.store.nearest(self.store.embedder.query(query)[0], k, visible(self.namespace)))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        hits = self.store.nearest(_unit(embedding), k, visible(self.namespace))
        return [document for document, _ in self._scored(hits)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        vector = self.embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Near documents that differ from each other."""
        query = _unit(embedding)
        hits = self.store.nearest(query, fetch_k, visible(self.namespace))
        vectors = self.store.sync.index.vectors([hit.fact.id for hit in hits])
        picked = maximal_marginal_relevance(query, list(vectors), lambda_mult=lambda_mult, k=k)
        return [document for document, _ in self._scored([hits[at] for at in picked])]

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: max(0.0, min(1.0, (cosine + 1) / 2))

    def _scored(self, hits: Sequence[Hit]) -> list[tuple[Document, float]]:
        return list(zip(self._documents([hit.fact for hit in hits]), (hit.score for hit in hits), strict=True))

    def _documents(self, facts: Sequence[StoredFact], name: str | None = None) -> Iterator[Document]:
        column = schema.document.c
        with self.store.database.read() as connection:
            query = select(column.fact_id, column.id, column.metadata).where(
                column.fact_id.in_([fact.id for fact in facts])
            )
            own = {row.fact_id: (row.id, row.metadata) for row in connection.execute(query)}
        for fact in facts:
            identity, meta = own.get(fact.id, (fact.uuid, fact_metadata(fact)))
            yield Document(id=name or identity, page_content=fact.statement, metadata=dict(meta))

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        url: str = "sqlite://",
        **kwargs: Any,
    ) -> EditMemory:
        """A memory filled with texts, on the database ``url`` (in RAM by default)."""
        own = isinstance(embedding, StoreEmbeddings)
        encoder: Embedder = embedding.embedder if own else LangChainEmbedder(embedding)  # type: ignore[attr-defined]
        memory = cls(FactStore(url, encoder), **kwargs)
        memory.add_texts(texts, metadatas, ids=ids)
        return memory


class EditRetriever(BaseRetriever):
    """Facts that a question is in the scope of, as the gate judges; with ``gated=False`` the k nearest facts."""

    gate: Gate
    k: int = 4
    namespace: str = DEFAULT_NAMESPACE
    gated: bool = True
    model_config = ConfigDict(arbitrary_types_allowed=True)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        limit = self.k if k is None else k
        if self.gated:
            hits = self.gate.judge(query, namespace=self.namespace).accepted[:limit]
        else:
            hits = tuple(self.gate.store.search(query, limit, namespace=self.namespace))
        documents = EditMemory(self.gate.store, namespace=self.namespace)._documents([hit.fact for hit in hits])
        return [
            Document(id=d.id, page_content=d.page_content, metadata={**d.metadata, "score": hit.score})
            for d, hit in zip(documents, hits, strict=True)
        ]


def fact_metadata(fact: StoredFact) -> dict[str, Any]:
    """What a document says of a fact that did not come as a document."""
    data = fact.to_json()
    names = ("subject", "relation", "object", "namespace", "status", "source", "actor", "valid_from", "valid_to")
    return {"fact_id": fact.id} | {name: data[name] for name in names}


def _remember(connection: Connection, namespace: str, name: str, fact_id: int, metadata: dict[str, Any]) -> str:
    """Ties a document's id and metadata to its fact; a fact that is a document already keeps its id."""
    column = schema.document.c
    there = connection.execute(select(column.id).where(column.fact_id == fact_id)).scalar()
    if there is not None:
        connection.execute(schema.document.update().where(column.fact_id == fact_id).values(metadata=metadata))
        return str(there)
    row = {"namespace": namespace, "id": name, "fact_id": fact_id, "metadata": metadata}
    connection.execute(schema.document.insert().values(row))
    return name


def _fact_id(connection: Connection, namespace: str, name: str) -> int | None:
    column = schema.document.c
    query = select(column.fact_id).where(column.namespace == namespace, column.id == name)
    found = connection.execute(query).scalar()
    if found is None:
        own = select(schema.fact.c.id).where(schema.fact.c.uuid == name, schema.fact.c.namespace == namespace)
        found = connection.execute(own).scalar()
    return None if found is None else int(found)


def _unit(embedding: Sequence[float]) -> Vectors:
    vector = np.asarray(embedding, dtype=np.float32)
    out: Vectors = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return out
