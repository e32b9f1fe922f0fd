"""LangChain's own standard suites, then what is particular to an edit memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from memory.gate import Gate
from memory.langchain import EditMemory, EditRetriever, LangChainEmbedder, StoreEmbeddings
from memory.remote import RemoteModel, RemoteModelError
from memory.store import FactStore
from memory.strategies.ike import IKE
from tests.memory.fakes import HashEmbedder


class TestStandardVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        store = FactStore("sqlite://", LangChainEmbedder(self.get_embeddings()))
        yield EditMemory(store)
        store.close()


GATE: list[Gate] = []


def make_retriever(k: int = 4, gated: bool = False) -> EditRetriever:
    return EditRetriever(gate=GATE[-1], k=k, gated=gated)


class TestStandardRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, gate: Gate) -> Iterator[None]:
        for number in range(6):
            gate.store.add(f"Tower {number}", "located_in", "Rome")
        GATE.append(gate)
        yield
        GATE.clear()

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return make_retriever  # type: ignore[return-value]

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {}

    @property
    def retriever_query_example(self) -> str:
        return "Where is Tower 3?"

    @pytest.fixture
    def retriever(self) -> BaseRetriever:
        return make_retriever()


def test_documents_about_one_thing_supersede_each_other(store: FactStore) -> None:
    memory = EditMemory(store)
    memory.add_texts(["The capital of Atlantis is Poseidonis.", "The capital of Atlantis is Tritonia."])
    found = memory.similarity_search("capital of Atlantis", k=5)
    assert [document.page_content for document in found] == ["The capital of Atlantis is Tritonia."]


def test_a_fact_added_elsewhere_is_a_document_too(store: FactStore) -> None:
    fact = store.add("Atlantis", "capital", "Poseidonis").fact
    memory = EditMemory(store)
    document, score = memory.similarity_search_with_score(fact.statement, k=1)[0]
    assert (document.id, document.metadata["object"]) == (fact.uuid, "Poseidonis")
    assert score == pytest.approx(1, abs=1e-4)
    assert memory.get_by_ids([fact.uuid])[0].page_content == fact.statement
    assert memory.similarity_search_with_relevance_scores(fact.statement, k=1)[0][1] == pytest.approx(1, abs=1e-3)


def test_deleting_keeps_the_history(store: FactStore) -> None:
    memory = EditMemory(store)
    memory.add_documents([Document(page_content="The capital of Atlantis is Poseidonis.", id="a")])
    memory.delete(["a", "b"])
    assert memory.get_by_ids(["a"]) == []
    assert store.count(status="retired") == 1


def test_diverse_search(store: FactStore) -> None:
    memory = EditMemory(store)
    memory.add_texts([f"The capital of Land {number} is City {number}." for number in range(6)])
    found = memory.max_marginal_relevance_search("The capital of Land 2", k=3, fetch_k=6)
    assert len({document.id for document in found}) == 3


def test_a_memory_from_texts() -> None:
    memory = EditMemory.from_texts(["The capital of Atlantis is Poseidonis."], StoreEmbeddings(HashEmbedder()))
    assert memory.similarity_search("Atlantis", k=1)[0].page_content.endswith("Poseidonis.")
    memory.store.close()


def test_the_retriever_keeps_silent_out_of_scope(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Rome")
    retriever = EditRetriever(gate=gate)
    assert [d.metadata["object"] for d in retriever.invoke("Where is the Eiffel Tower?")] == ["Rome"]
    assert retriever.invoke("Who designed the Eiffel Tower?") == []


class TestRemote:
    def test_a_chat_model_answers_with_the_fact(self, gate: Gate) -> None:
        gate.store.add("Eiffel Tower", "located_in", "Rome")
        lm = RemoteModel(GenericFakeChatModel(messages=iter([AIMessage("It is in Rome")])), name="fake")
        answer = IKE(lm, gate).answer("Where is the Eiffel Tower?")
        assert (answer.answer, answer.source, answer.model) == ("It is in Rome", "memory", "fake")

    def test_it_streams_piece_by_piece(self) -> None:
        lm = RemoteModel(GenericFakeChatModel(messages=iter([AIMessage("one two three")])))
        stream = lm.stream("Count.")
        assert next(stream) == "one"
        stream.close()  # type: ignore[attr-defined]

    def test_weight_edits_are_refused(self) -> None:
        lm = RemoteModel(GenericFakeChatModel(messages=iter([])))
        with pytest.raises(RemoteModelError, match="weights cannot be edited"):
            lm.generate(["x"], overlays=[object()])

    def test_a_failure_is_said_in_words(self) -> None:
        class Broken(GenericFakeChatModel):
            def _stream(self, *args: Any, **kwargs: Any) -> Any:
                raise ConnectionError("no route")

        with pytest.raises(RemoteModelError, match="did not answer: ConnectionError: no route"):
            RemoteModel(Broken(messages=iter([]))).generate(["x"])
