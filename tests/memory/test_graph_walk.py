"""The graph walk: chains followed in memory, hops not told, and silence where memory does not lead there."""

from __future__ import annotations

import pytest

from memory.chains import ChainReader
from memory.gate import Gate, GateVerdict
from memory.mentions import Span
from memory.questions import asked_kinds
from memory.relation_chains import implied
from memory.relation_words import RelationWords, stem, words
from memory.router import Router
from memory.strategies.graph_walk import GraphWalk
from memory.view import Hit
from tests.memory.fakes import FakeModel, words_of

FACTS = [
    ("Blue Harbour", "performer", "{} was performed by", "Who performed {}?", "Mira Kestrel"),
    ("Mira Kestrel", "manager", "The manager of {} is", "Who is the manager of {}?", "Tom Ashby"),
    ("Tom Ashby", "citizenship", "{} is a citizen of", "What is the country of citizenship of {}?", "Velland"),
    ("Velland", "capital", "The capital of {} is", "What is the capital of {}?", "Orsk Bay"),
    ("Velland", "continent", "{} is located in the continent of", "Which continent is {} located in?", "Africa"),
    ("Velland", "official language", "The official language of {} is", "What is the official language of {}?", "Vell"),
    ("Mira Kestrel", "spouse", "{} is married to", "Who is {} married to?", "Ned Fox"),
    ("Ned Fox", "citizenship", "{} is a citizen of", "What is the country of citizenship of {}?", "Osterland"),
    ("Osterland", "capital", "The capital of {} is", "What is the capital of {}?", "Grauburg"),
    ("Orsk Bay", "twin town", "The twin town of {} is", "What is the twin town of {}?", "Lumen"),
]


@pytest.fixture
def filled(gate: Gate) -> Gate:
    for subject, relation, prompt, question, obj in FACTS:
        gate.store.add(subject, relation, obj, prompt=prompt, question=question.replace("{}", subject))
    return gate


@pytest.fixture
def walk(filled: Gate) -> GraphWalk:
    return GraphWalk(FakeModel(lambda text: "I don't know"), filled)


@pytest.mark.parametrize(
    ("question", "chain"),
    [
        ('Who is the manager of the performer of "Blue Harbour"?', ["Mira Kestrel", "Tom Ashby"]),
        ("Who manages Blue Harbour's performer?", ["Mira Kestrel", "Tom Ashby"]),
        (
            "Which country is the manager of the performer of Blue Harbour a citizen of?",
            ["Mira Kestrel", "Tom Ashby", "Velland"],
        ),
        (
            'What is the capital of the country where the manager of the performer of "Blue Harbour" is a citizen?',
            ["Mira Kestrel", "Tom Ashby", "Velland", "Orsk Bay"],
        ),
        (
            "On which continent is the country whose citizen Mira Kestrel's manager is?",
            ["Tom Ashby", "Velland", "Africa"],
        ),
        (
            "Which city is the capital of the country of citizenship of the spouse of Mira Kestrel?",
            ["Ned Fox", "Osterland", "Grauburg"],
        ),
        # a hop that the question leaves out: the song's manager is its performer's manager
        (
            "What is the official language of the country that the manager of Blue Harbour is a citizen of?",
            ["Mira Kestrel", "Tom Ashby", "Velland", "Vell"],
        ),
        ("What is the capital of Velland?", ["Orsk Bay"]),
    ],
)
def test_follows_the_chain_that_the_question_describes(walk: GraphWalk, question: str, chain: list[str]) -> None:
    answer = walk.answer(question)
    assert [step["answer"] for step in answer.steps] == chain
    assert (answer.answer, answer.source) == (chain[-1], "memory")
    assert [hit.fact.object for hit in answer.hits] == chain


@pytest.mark.parametrize(
    "question",
    [
        'Who is the manager of the performer of "Red Harbour"?',  # an entity nobody knows
        'What is the capital of the country where the performer of "Blue Harbour Nights" was born?',  # a longer name
        "Who is the mayor of Velland?",  # a known entity, another relation
        "How are you today?",
        "What is the population of the capital of Velland?",  # the last hop is nowhere
        "?",
    ],
)
def test_abstains(walk: GraphWalk, question: str) -> None:
    answer = walk.answer(question)
    assert (answer.source, answer.answer, answer.hits, answer.steps) == ("model", "I don't know", (), ())


def test_a_circle_of_facts_ends(gate: Gate) -> None:
    gate.store.add("Aldo", "spouse", "Berta", prompt="{} is married to", question="Who is Aldo married to?")
    gate.store.add("Berta", "spouse", "Aldo", prompt="{} is married to", question="Who is Berta married to?")
    answer = GraphWalk(FakeModel(), gate).answer("Who is the spouse of the spouse of the spouse of Aldo?")
    assert len(answer.steps) <= 2


def test_an_alias_of_the_first_entity_and_of_one_on_the_way(filled: Gate) -> None:
    filled.store.add_alias("The Harbour Song", "Blue Harbour")
    filled.store.add("Harbour Tales", "performer", "M. Kestrel", prompt="{} was performed by")
    filled.store.add_alias("M. Kestrel", "Mira Kestrel")
    walk = GraphWalk(FakeModel(), filled)
    assert walk.answer("Who is the manager of the performer of The Harbour Song?").answer == "Tom Ashby"
    assert walk.answer("Who is the manager of the performer of Harbour Tales?").answer == "Tom Ashby"


def test_namespaces_do_not_leak_into_a_chain(filled: Gate) -> None:
    walk = GraphWalk(FakeModel(lambda text: "I don't know"), filled)
    question = 'Who is the manager of the performer of "Blue Harbour"?'
    assert walk.answer(question, namespace="other").source == "model"


def test_hops_that_memory_lacks_come_from_the_model(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Oslo")

    def reply(text: str) -> str:
        return {"Which country is Oslo in?": "Norway", "What is the currency of Norway?": "krone"}.get(
            text, "Norway" if "Oslo" in text else "krone" if "Norway" in text else "euro"
        )

    seen: list[object] = []
    walk = GraphWalk(FakeModel(reply), gate)
    answer = walk.answer(
        "What is the currency of the country of the city where the Eiffel Tower stands?", on_step=seen.append
    )
    assert [(step["answer"], step["source"]) for step in answer.steps] == [
        ("Oslo", "memory"),
        ("Norway", "model"),
        ("krone", "model"),
    ]
    assert (answer.answer, answer.source) == ("krone", "memory")
    assert seen == list(answer.steps)


def test_an_edit_in_the_middle_of_a_chain(gate: Gate) -> None:
    gate.store.add("Paris", "country", "Japan")
    walk = GraphWalk(FakeModel(lambda text: "Paris" if "Eiffel" in text else "yen"), gate)
    answer = walk.answer("What is the currency of the country of the city where the Eiffel Tower stands?")
    assert [step["source"] for step in answer.steps] == ["model", "memory", "model"]
    assert answer.answer == "yen"


def test_a_chain_without_any_fact_of_memory_is_the_models(gate: Gate) -> None:
    gate.store.add("Rome", "country", "Japan")
    model = FakeModel(lambda text: "Paris" if "Eiffel" in text else "France")
    answer = GraphWalk(model, gate).answer("Which country is the city where the Eiffel Tower stands in?")
    assert (answer.source, answer.steps) == ("model", ())


def test_the_router_takes_the_walk_for_a_chain_and_says_so(filled: Gate) -> None:
    router = Router(FakeModel(), filled)
    route = router.route('Who is the manager of the performer of "Blue Harbour"?')
    assert (route.strategy, route.reason) == ("graph_walk", "memory holds all 2 hops of the question")
    assert router.route("Who is the manager of Mira Kestrel?").strategy == "ike"
    assert router.route('Who is the manager of the performer of "Blue Harbour"?', strategy="mello").strategy == "mello"


def test_words_of_one_family_are_one() -> None:
    for family in (("originates", "origin", "originally"), ("manager", "manages", "managed"), ("born", "birthplace")):
        assert len({stem(word) for word in family}) == 1
    table = RelationWords.bundled()
    assert table.groups[int(table.log_ratios([stem("coached")])[:, 0].argmax())] == "head_coach"


def test_an_entity_inside_a_longer_name_is_no_start(filled: Gate) -> None:
    filled.store.add("Yesterday", "performer", "Mira Kestrel", prompt="{} was performed by")
    reader = ChainReader(filled)
    assert reader.starts('Who performed "Yesterday and Today"?', "default") == []
    assert [start.span for start in reader.starts('Who performed "Yesterday"?', "default")] == [Span(15, 24, 1.0)]


def test_a_relation_that_only_the_users_facts_name_is_followed_by_its_own_words(filled: Gate) -> None:
    store = filled.store
    store.add(
        "Acme Orchards", "mascot", "Pim the Otter", prompt="The mascot of {} is", question="What is the mascot of {}?"
    )
    store.add("Pim the Otter", "costume maker", "Lena Voss", prompt="The costume maker of {} is")
    walk = GraphWalk(FakeModel(lambda text: "I don't know"), filled)
    path = walk.covers("Who is the costume maker of the mascot of Acme Orchards?", "default")
    assert path is not None
    assert [fact.object for fact in path.facts] == ["Pim the Otter", "Lena Voss"]


@pytest.mark.parametrize(
    ("question", "kinds", "word"),
    [
        ("Which country is the official capital of Finland in?", {"country"}, "country"),
        ("the city of the capital of Finland - what nation?", {"country"}, "nation"),
        ("the instrument that he plays - which instrument family is that?", {"instrument family"}, "family"),
        ("whoever designed it - what was the job?", {"profession"}, "job"),
        ("As what did she work?", {"profession"}, "what"),
        ("Whom do we thank for it?", {"person", "performer"}, "Whom"),
        ("Any idea who it was that found it?", {"person", "performer"}, "who"),
        ("What is the country whose capital is Rome known for?", set(), None),
        ("The capital of the country to which it belongs, please.", set(), None),
        ("the city where she who wrote it was born", set(), None),
        ("the capital of the country of the person to whom it is ascribed", set(), None),
        ("With whom did it begin?", {"person", "performer"}, "whom"),
        ("Which county is it in?", set(), None),
        ("Which professor found it?", set(), None),
    ],
)
def test_what_kind_of_thing_is_asked_for(question: str, kinds: set[str], word: str | None) -> None:
    kept = words(question)
    found, at = asked_kinds(question, kept)
    assert found == kinds
    assert (None if at is None else question[kept[at].start : kept[at].end]) == word


@pytest.mark.parametrize(
    "question",
    ["Which country is the official capital of Finland in?", "the city of the capital of Finland - what country?"],
)
def test_a_chain_that_comes_back_to_the_kind_it_began_at(gate: Gate, question: str) -> None:
    gate.store.add("Finland", "capital", "Tirana")
    answer = GraphWalk(FakeModel(lambda text: "Albania" if "Tirana" in text else "Finland"), gate).answer(question)
    assert [(step["answer"], step["source"]) for step in answer.steps] == [("Tirana", "memory"), ("Albania", "model")]


def test_the_first_hop_alone_where_that_is_asked_for(gate: Gate) -> None:
    gate.store.add("Finland", "capital", "Tirana")
    answer = GraphWalk(FakeModel(lambda text: "Albania"), gate).answer("Which city is the capital of Finland?")
    assert (answer.answer, len(answer.steps)) == ("Tirana", 1)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Which country is the Eiffel Tower in?", ["Oslo", "Norway"]),
        ("On which continent is the Eiffel Tower?", ["Oslo", "Norway", "Europe"]),
        ("What currency is used where the Eiffel Tower stands?", ["Oslo", "Norway", "krone"]),
    ],
)
def test_what_follows_from_a_fact_is_reached_from_there(gate: Gate, question: str, answers: list[str]) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Oslo")
    knows = {"Oslo": "Norway", "continent": "Europe", "currency": "krone"}
    router = Router(FakeModel(lambda text: next((a for word, a in knows.items() if word in text), "France")), gate)
    answer = router.answer(question)
    assert (answer.strategy, [step["answer"] for step in answer.steps]) == ("graph_walk", answers)
    assert answer.answer == answers[-1]


@pytest.mark.parametrize("question", ["Which country is Marie Curie in?", "Where is the Eiffel Tower?"])
def test_what_has_a_relation_of_its_own_does_not_follow_from_another_fact(gate: Gate, question: str) -> None:
    gate.store.add("Marie Curie", "birthplace", "Oslo")
    gate.store.add("Eiffel Tower", "located_in", "Oslo")
    answer = Router(FakeModel(lambda text: "Oslo" if "New fact" in text else "Poland"), gate).answer(question)
    assert len(answer.steps) < 2


@pytest.mark.parametrize(
    ("fact", "question"),
    [
        (("Hamlet", "author", "Agatha Christie"), "In which city is Hamlet set?"),
        (("Eiffel Tower", "located_in", "Austin"), "Which state is the Eiffel Tower in?"),
        (("Eiffel Tower", "located_in", "Oslo"), "Which country designed the Eiffel Tower?"),
    ],
)
def test_nothing_is_implied_beyond_being_there(gate: Gate, fact: tuple[str, str, str], question: str) -> None:
    gate.store.add(*fact)
    answer = Router(FakeModel(lambda text: "said"), gate).answer(question)
    assert len(answer.steps) < 2


def test_a_fact_in_scope_is_not_lost_where_the_chain_breaks_off(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Zorbville")
    fact = gate.store.list()[0]
    verdict = GateVerdict(True, 0.99, 0.7, (Hit(fact, 0.99),))
    model = FakeModel(lambda text: "in Zorbville" if "New fact: " in text else "I don't know")
    answer = GraphWalk(model, gate).answer("Which country is the Eiffel Tower in?", verdict=verdict)
    assert any("Which country is Zorbville in?" in words_of(prompt) for prompt in model.prompts)
    assert (answer.answer, answer.source) == ("in Zorbville", "memory")


@pytest.mark.parametrize(
    ("subject", "relation", "question", "way"),
    [
        ("Eiffel Tower", "located_in", "Which country is the Eiffel Tower in?", ["located_in", "country"]),
        ("Eiffel Tower", "located_in", "Where is the Eiffel Tower?", None),  # no noun says a kind
        ("Marie Curie", "birthplace", "Which country is Marie Curie in?", None),  # a person has a citizenship
        ("Hamlet", "author", "Which city is Hamlet in?", None),  # an author is no place
        ("Eiffel Tower", "located_in", "Which sport is the Eiffel Tower in?", None),  # no way leads there
    ],
)
def test_what_a_question_may_leave_unsaid(
    gate: Gate, subject: str, relation: str, question: str, way: list[str] | None
) -> None:
    gate.store.add(subject, relation, "Oslo")
    reader, relations = ChainReader(gate), gate.store.lexicon.relations
    (start,) = reader.starts(question, "default")
    chain = implied(reader.read(question, start), relations[relation], relations)
    assert (chain and [step.id for step in chain.relations]) == way
