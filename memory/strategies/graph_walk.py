"""Graph walk: a chain of facts is followed in the memory itself.

Facts are triples, so a question of several hops describes a path through them (:mod:`memory.chains`). The walk takes
the path that explains the question's words best and answers with its end; no language model has a say in the hops
that memory knows. Where memory lacks a hop, the question is read as a chain of relations
(:mod:`memory.relation_chains`), the model is asked for the hops that memory does not hold, and memory goes first at
each. Where the question names no entity that memory has facts about, or the facts do not lead where the question
goes, the walk abstains and the model answers by itself.
"""

from __future__ import annotations

from collections.abc import Generator

from knowledge.relations import Relation
from knowledge.text import normalise_answer, normalise_key
from language_model.prompts import UNKNOWN, user
from memory.chains import ChainReader, Path
from memory.gate import Gate
from memory.models import ChatModel
from memory.questions import Start, asked_kinds, looks_like_chain
from memory.relation_chains import RelationChain, implied, read_relations
from memory.relation_words import words
from memory.schema import StoredFact
from memory.strategies.base import Outcome, Request, Step, Strategy
from memory.strategies.ike import IKE, IKEOptions
from memory.view import Hit

_FEW_WORDS = 4.0  # log ratios up to which a question says next to nothing beside its entity: "Where is Big Ben?"


class GraphWalk(Strategy):
    """The path through memory that the question describes; it is shown in ``Answer.steps``."""

    name = "graph_walk"
    title = "Graph walk: chains followed in memory"
    paper = ""

    def __init__(self, lm: ChatModel, gate: Gate, reader: ChainReader | None = None) -> None:
        super().__init__(lm, gate)
        self.reader = reader or ChainReader(gate)
        self._facts = IKE(lm, gate)
        self._beside = IKE(lm, gate, IKEOptions(checked=False))
        self._latest: tuple[object, Path | None, tuple[RelationChain, Start] | None] = (None, None, None)

    def run(self, request: Request) -> Generator[str, None, Outcome]:
        if request.cancel is not None and request.cancel.is_set():
            return Outcome("", "model")
        path, chain = self._read(request.query, request.namespace)
        whole = path if path is not None and path.complete else None
        if whole is not None and not self._says_more(chain, whole):
            found: Outcome | None = self._whole(whole, request)
        else:
            beyond = chain is not None and self._beyond(chain[0], request.query)
            found = None if beyond else self._single(request)
            found = found or (self._along(*chain, request) if chain is not None else None)
            found = found or (self._whole(whole, request) if whole is not None else None)
        if found is None:
            return (yield from self._broken_off(request))
        yield found.text
        return found

    def _broken_off(self, request: Request) -> Generator[str, None, Outcome]:
        """A fact in scope is not lost because the chain broke off; but of a chain it is no more than a hop.

        So the model reads it and answers, and where it does not know all the same, memory had no part in that.
        """
        if not request.verdict.accepted:
            return (yield from self.plain(request))
        if not looks_like_chain(request.query):
            return (yield from self._facts.run(request))
        found = yield from self._beside.run(request)
        unknown = normalise_answer(found.text) == normalise_answer(UNKNOWN)
        return Outcome(found.text, "model") if unknown else found

    def _whole(self, path: Path, request: Request) -> Outcome:
        steps = tuple(_memory_step(fact, spoken) for fact, spoken in zip(path.facts, path.spoken, strict=True))
        for step in steps:
            self._tell(step, request)
        return Outcome(path.facts[-1].object, "memory", tuple(Hit(fact, 1.0) for fact in path.facts), steps)

    def covers(self, query: str, namespace: str) -> Path | None:
        """The path of several facts that answers a question, if there is one; nothing is generated."""
        path, chain = self._read(query, namespace)
        if path is None or not path.complete or self._says_more(chain, path):
            return None
        return path if len(path.facts) > 1 else None

    def reads(self, query: str, namespace: str) -> bool:
        """Whether a question can be read as a chain of relations, whoever knows the hops."""
        _, chain = self._read(query, namespace)
        return chain is not None and len(chain[0].relations) > 1

    def goes_on(self, query: str, namespace: str, accepted: StoredFact | None = None) -> bool:
        """Whether the question names a kind of thing that lies beyond a fact in memory: the country of a new city.

        Args:
            accepted: the fact that the gate takes the question to be about; one of the kind asked for is the answer.
        """
        kinds, _ = asked_kinds(query, words(query))
        relation = self.gate.store.lexicon.relations.get(accepted.relation or "") if accepted is not None else None
        if not kinds or (relation is not None and relation.object_type in kinds):
            return False
        path, chain = self._read(query, namespace)
        if chain is None or not self._beyond(chain[0], query):
            return False
        if path is not None and path.complete and not self._says_more(chain, path):
            return False
        return self._known(chain[1].key, chain[0].relations[0], namespace) is not None

    @staticmethod
    def _beyond(chain: RelationChain, query: str) -> bool:
        """Whether a chain of several hops ends at the kind of thing that the question names."""
        return len(chain.relations) > 1 and chain.fits and bool(asked_kinds(query, words(query))[0])

    def _read(self, query: str, namespace: str) -> tuple[Path | None, tuple[RelationChain, Start] | None]:
        """The question as a path and as relations; remembered, since the router asks first and the answer after."""
        self.gate.store.sync.refresh()
        key = (query, namespace, self.gate.store.sync.seq)
        known, path, chain = self._latest
        if known != key:
            path, chain = self.reader.best(query, namespace), self._chain(query, namespace)
            self._latest = (key, path, chain)  # one assignment: other threads see the old or the new
        return path, chain

    def _single(self, request: Request) -> Outcome | None:
        """The fact that the gate accepts, where the question has no words a relation could be read from."""
        hits = request.verdict.accepted[:1]
        if not hits or looks_like_chain(request.query):
            return None
        starts = self.reader.starts(request.query, request.namespace)
        said = min((self.reader.content(self.reader.read(request.query, start)) for start in starts), default=0.0)
        if said > _FEW_WORDS:
            return None
        step = _memory_step(hits[0].fact, True)
        self._tell(step, request)
        return Outcome(hits[0].fact.object, "memory", hits, (step,))

    # ------------------------------------------------------------------------------------------------ mixed chains

    def _chain(self, query: str, namespace: str) -> tuple[RelationChain, Start] | None:
        found: list[tuple[RelationChain, Start]] = []
        for start in self.reader.entities(query, namespace):
            reading = self.reader.read(query, start)
            evidence = self.reader.evidence(reading)
            chain = read_relations(reading, self.gate.store.lexicon.relations, evidence)
            if chain is not None and reading.strangers == 0:
                found.append((chain, start))
        best = max(found, key=lambda pair: pair[0].score, default=None)
        if best is None or not best[0].fits:
            unsaid = self._implied(query, namespace)
            return unsaid[0] if len(unsaid) == 1 else best
        return best

    def _implied(self, query: str, namespace: str) -> list[tuple[RelationChain, Start]]:
        """Chains that begin with a fact in memory and of which the question says only where they end."""
        relations = self.gate.store.lexicon.relations
        found = []
        for start in self.reader.starts(query, namespace):
            reading = self.reader.read(query, start)
            for fact in self.reader.facts_about({start.key}, namespace) if reading.strangers == 0 else ():
                first = relations.get(fact.relation or "")
                chain = implied(reading, first, relations) if first is not None else None
                found += [(chain, start)] if chain is not None else []
        return found

    def _along(self, chain: RelationChain, start: Start, request: Request) -> Outcome | None:
        lexicon = self.gate.store.lexicon
        key, name = start.key, start.name
        alone = len(chain.relations) == 1 and self._known(key, chain.relations[0], request.namespace) is None
        if alone or len(self.gate.store.sync.index) == 0:
            return None  # nothing that memory could have a part in
        steps: list[Step] = []
        used: list[Hit] = []
        for relation in chain.relations:
            fact = self._known(key, relation, request.namespace)
            if fact is not None:
                steps.append(_memory_step(fact, True))
                used.append(Hit(fact, 1.0))
                name = fact.object
            elif request.cancel is not None and request.cancel.is_set():
                return None
            else:
                question = relation.ask(name)
                name = self.reply([user(question)], request).strip().rstrip(".")
                if not name or normalise_answer(name) == normalise_answer(UNKNOWN):
                    return None
                steps.append({"subquestion": question, "retrieved": None, "answer": name, "source": "model"})
            key = lexicon.entity_key(name)
        if not used:
            return None
        for step in steps:
            self._tell(step, request)
        return Outcome(name, "memory", tuple(used), tuple(steps))

    def _known(self, key: str, relation: Relation, namespace: str) -> StoredFact | None:
        """The fact in memory about an entity that says this relation."""
        facts = self.reader.facts_about({key}, namespace)
        own = {normalise_key(relation.id), normalise_key(relation.label), relation.id}
        return next((fact for fact in facts if fact.relation_key in own or self.reader.says(fact, relation.id)), None)

    def _says_more(self, found: tuple[RelationChain, Start] | None, path: Path) -> bool:
        """Whether the question goes on beyond the path: read as relations it is longer, and explained better by that,
        or ends at the kind of thing that is asked for where the path does not."""
        if found is None or len(found[0].relations) <= len(path.facts):
            return False
        chain, kinds = found[0], path.reading.kinds
        relation = self.gate.store.lexicon.relations.get(path.facts[-1].relation or "")
        ends_elsewhere = bool(kinds) and relation is not None and relation.object_type not in kinds
        return chain.score > path.score + 1.0 or (ends_elsewhere and chain.fits)

    def _tell(self, step: Step, request: Request) -> None:
        if request.on_step is not None:
            request.on_step(step)


def _memory_step(fact: StoredFact, spoken: bool) -> Step:
    return {
        "subquestion": fact.question or f"{(fact.prompt or '').replace('{}', fact.subject)} ...",
        "retrieved": Hit(fact, 1.0).to_json(),
        "verdict": "followed" if spoken else "passed through",
        "answer": fact.object,
        "source": "memory",
    }
