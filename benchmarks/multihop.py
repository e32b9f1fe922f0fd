"""The graph walk on MQuAKE questions: any and all of three phrasings, hop-wise, cut chains, distractors, strangers.

    python -m benchmarks.multihop                  # everything, on the second half of the file
    python -m benchmarks.multihop --part all --only full

All edits of the file are in memory. Nothing tells the walk how many hops there are. The questions cut to 2 and 3 hops
begin at the chain's own first entity and are worded from the relations' labels and the file's single-hop questions,
in three ways. Distractors give every entity of the chains at least eight facts of other relations, their objects drawn
from the entities of the chains and from names of the bundled world. No language model is needed: all hops are edited.
Chains of the bundled world mix edited and unedited hops; a stand-in that knows the world answers the latter, or the
model given with --model.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.distractors import distract
from benchmarks.table import percentile, rate, show
from evaluation.datasets import find, read
from evaluation.datasets.cases import EditCase
from knowledge.text import answer_matches
from knowledge.world import load_world
from memory.embedder import load_embedder
from memory.gate import Gate
from memory.lexicon import Lexicon
from memory.registry import get_strategy
from memory.store import FactStore
from memory.writing import Draft


class Silent:
    """A model that knows nothing: every hop has to come from memory."""

    name = "silent"
    context = 2048

    def count_tokens(self, prompt: Any) -> int:
        return 1

    def generate(self, prompts: Sequence[Any], **_: Any) -> list[str]:
        return ["I don't know"] * len(prompts)

    def stream(self, prompt: Any, **_: Any) -> Any:
        yield "I don't know"


class Knowing(Silent):
    """A model that knows the bundled world and nothing else: the answers that a perfect one would give."""

    name = "knowing"

    def __init__(self) -> None:
        world = load_world()
        self.answers: dict[str, str] = {}
        for fact in world.facts:
            self.answers.setdefault(world.relations[fact.relation].ask(fact.subject), fact.object)

    def generate(self, prompts: Sequence[Any], **_: Any) -> list[str]:
        texts = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
        return [self.answers.get(text, "I don't know") for text in texts]


@dataclass(frozen=True)
class Task:
    """Three phrasings with what is right."""

    questions: tuple[str, ...]
    answer: str
    aliases: tuple[str, ...]
    hops: tuple[tuple[str, tuple[str, ...]], ...]  # answers of the hops with their other names


def tasks(cases: Sequence[EditCase]) -> list[Task]:
    """The file's own questions."""
    out = []
    for case in cases:
        chain = case.multihop
        assert chain is not None
        hops = tuple((hop.answer, hop.aliases) for hop in chain.hops)
        out.append(Task(chain.questions, chain.after, chain.after_aliases, hops))
    return out


def cut(raw: Sequence[dict[str, Any]], length: int) -> list[Task]:
    """The chains' first hops as questions of their own, worded from relation labels and single-hop questions."""
    out = []
    for record in raw:
        triples = record["orig"]["new_triples_labeled"][:length]
        hops = record["new_single_hops"][:length]
        labels = [relation.replace(" / ", "/") for _, relation, _ in triples]
        first = triples[0][0]
        of = first
        for label in labels[:-1]:
            of = f"the {label} of {of}"
        own = f"{first}'s {labels[0]}"
        for label in labels[1:-1]:
            own = f"the {label} of {own}"
        last = hops[-1]["question"]
        inner = triples[-1][0]
        asked = last.replace(inner, of) if inner in last else f"What is the {labels[-1]} of {of}?"
        questions = (
            f"What is the {labels[-1]} of {of}?",
            asked,
            f"Tell me the {labels[-1]} of {own}.",
        )
        answers = tuple((hop["answer"], tuple(hop.get("answer_alias", ()))) for hop in hops)
        out.append(Task(questions, answers[-1][0], answers[-1][1], answers))
    return out


def world_chains(count: int, store: FactStore, seed: int, *, unseen: bool) -> list[Task]:
    """Chains of 2 to 4 hops of the bundled world, some hops edited (at least one) and some not; edits go into memory.

    Args:
        unseen: worded with the phrasings that the world keeps out of all training.
    """
    rng, world = random.Random(seed), load_world()
    starts = [facts for facts in world.by_relation.values() if facts]
    edited: dict[tuple[str, str], str] = {}
    kept: set[tuple[str, str]] = set()  # hops of earlier chains that must stay as they are
    out: list[Task] = []
    while len(out) < count:
        length = rng.randint(2, 4)
        subject = rng.choice(rng.choice(starts)).subject
        first, hops, relations, new, used = subject, [], [], {}, []
        for at in range(length):
            facts = [fact for fact in world.facts_of(subject) if fact.relation not in relations]
            if not facts:
                break
            fact = rng.choice(facts)
            obj = edited.get((subject, fact.relation), fact.object)
            free = (subject, fact.relation) not in edited and (subject, fact.relation) not in kept
            if free and (rng.random() < 0.5 or (at == length - 1 and not new)):
                obj = rng.choice(world.objects_of_relation[fact.relation])
                new[subject, fact.relation] = obj
            hops.append((obj, world.aliases_of(obj)))
            relations.append(fact.relation)
            used.append((subject, fact.relation))
            subject = obj
        if len(hops) < length or not new:
            continue
        texts = []
        for _ in range(3):
            phrase = first
            for name in relations[:-1]:
                relation = world.relations[name]
                phrase = phrase_of(relation.noun_unseen if unseen else relation.noun, phrase, rng)
            last = world.relations[relations[-1]]
            texts.append(phrase_of(last.question_unseen if unseen else last.question, phrase, rng))
        edited |= new
        kept |= set(used)
        out.append(Task(tuple(texts), hops[-1][0], hops[-1][1], tuple(hops)))
    store.add_many([Draft(store.lexicon.word(name, relation, obj)) for (name, relation), obj in edited.items()])
    return out


def phrase_of(wordings: Sequence[str], name: str, rng: random.Random) -> str:
    return rng.choice(wordings).replace("{}", name)


def fill(store: FactStore, cases: Sequence[EditCase]) -> None:
    """All edits as facts, in the wording of the file."""
    drafts = []
    for case in cases:
        for edit in case.edits:
            word = store.lexicon.word(
                edit.subject, edit.relation, edit.target_new, prompt=edit.prompt, question=edit.question
            )
            drafts.append(Draft(word, source="MQuAKE"))
    store.add_many(drafts)


def score(name: str, gate: Gate, given: Sequence[Task], misses: int, lm: Any = None) -> list[Any]:
    """One row of the table."""
    walk = get_strategy("graph_walk", lm or Silent(), gate)
    any_right, all_right, each_right, hops_right, answered, seconds = [], [], [], [], [], []
    for task in given:
        rights = []
        for question in task.questions:
            start = time.perf_counter()
            answer = walk.answer(question)
            seconds.append(time.perf_counter() - start)
            right = answer.source == "memory" and answer_matches(answer.answer, task.answer, task.aliases)
            rights.append(right)
            answered.append(answer.source == "memory")
            said = [str(step["answer"]) for step in answer.steps]
            along = len(said) == len(task.hops) and all(
                answer_matches(one, *hop) for one, hop in zip(said, task.hops, strict=True)
            )
            if right:
                hops_right.append(along)
            if not right and misses > 0:
                misses -= 1
                print(f"  missed: {question}\n    wanted {task.answer}, got {answer.answer} by {' -> '.join(said)}")
        each_right.append(sum(rights) / len(rights))  # of a case: its phrasings are not independent
        any_right.append(any(rights))
        all_right.append(all(rights))
    took = f"{1000 * percentile(seconds, 0.5):.0f} / {1000 * percentile(seconds, 0.95):.0f}" if seconds else "-"
    rates = [rate(shares) for shares in (any_right, all_right, each_right, hops_right, answered)]
    return [name, len(given), *rates, took]


def strangers(store: FactStore, gate: Gate, cases: Sequence[EditCase], misses: int) -> list[Any]:
    """Each case's first entity taken out of memory, its question asked, and put back."""
    walk = get_strategy("graph_walk", Silent(), gate)
    flags = []
    for case in cases:
        assert case.multihop is not None
        key = store.lexicon.entity_key(_first(case))
        gone = [fact for fact in store.about([key], ("default",), 1000) if fact.subject_key == key]
        for fact in gone:
            store.retire(fact.id)
        for question in case.multihop.questions:
            answer = walk.answer(question)
            flags.append(answer.source == "model")
            if answer.source != "model" and misses > 0:
                misses -= 1
                said = " -> ".join(str(step["answer"]) for step in answer.steps)
                print(f"  not abstained: {question}\n    {said} from {answer.hits[0].fact.statement}")
        for _ in gone:
            store.undo()
    return ["first entity unknown: abstains", len(flags), rate(flags), "-", "-", "-", "-", "-"]


def _first(case: EditCase) -> str:
    """The entity at the chain's beginning: a subject that is no other hop's answer, else the first edit's."""
    assert case.multihop is not None
    cloze = case.multihop.hops[0].cloze
    return next((edit.subject for edit in case.edits if edit.text == cloze), case.edits[0].subject)


def main() -> None:
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mquake_hard")
    parser.add_argument("--path", type=Path, help="this very file, in MQuAKE's format")
    parser.add_argument("--part", choices=("first", "second", "all"), default="second", help="which half is asked")
    parser.add_argument(
        "--only", choices=("full", "cut", "strangers", "distractors", "world"), help="one block of rows"
    )
    parser.add_argument("--distractors", type=int, default=20_000)
    parser.add_argument("--misses", type=int, default=0, help="so many failures are shown a row")
    parser.add_argument(
        "--model", help="answers the unedited hops of the world's chains; a perfect stand-in by default"
    )
    parser.add_argument("--chains", type=int, default=150, help="chains of the world; 0: none")
    parser.add_argument("--seed", type=int, default=2, help="draws the world's chains; 1 are those looked at by hand")
    parser.add_argument("--limit", type=int, help="so many cases at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    path = options.path or find(options.dataset)
    cases = read(options.dataset, path=path)
    raw = json.loads(path.read_text(encoding="utf-8"))
    half = len(cases) // 2
    chosen = {"first": slice(half), "second": slice(half, None), "all": slice(None)}[options.part]
    asked, records = cases[chosen][: options.limit], raw[chosen][: options.limit]
    embedder = load_embedder()
    rows = []
    with FactStore("sqlite://", embedder, lexicon=Lexicon.bundled()) as store:
        fill(store, cases)
        gate = Gate(store)
        if options.only in (None, "full"):
            rows.append(score("the file's questions", gate, tasks(asked), options.misses))
        if options.only in (None, "cut"):
            for length in (2, 3):
                rows.append(score(f"cut to {length} hops", gate, cut(records, length), options.misses))
        if options.only in (None, "strangers"):
            rows.append(strangers(store, gate, asked, options.misses))
        if options.only in (None, "distractors"):
            count = distract(store, options.distractors, seed=0)
            rows.append(score(f"with {count} distractors", gate, tasks(asked), options.misses))
    if options.only in (None, "world") and options.chains > 0:
        model: Any = Knowing()
        if options.model:
            from language_model.model import LanguageModel

            model = LanguageModel.load(options.model)
        for unseen in (False, True):
            with FactStore("sqlite://", embedder, lexicon=Lexicon.bundled()) as store:
                given = world_chains(options.chains, store, options.seed, unseen=unseen)
                kind = "unseen" if unseen else "trained"
                name = f"world chains, {kind} phrasings, {model.name} answers unedited hops"
                rows.append(score(name, Gate(store), given, options.misses, model))
    columns = (
        "questions", "n", "any of 3", "all of 3", "each question", "hop-wise, of right ones", "answered",
        "ms median / p95",
    )  # fmt: skip
    show(f"Graph walk, {path.name}, {options.part} part", columns, rows, as_json=options.json)


if __name__ == "__main__":
    main()
