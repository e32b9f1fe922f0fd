"""The gate on data that nothing was trained on: edits of a MQuAKE file, and the bundled world's held-out phrasings.

    python -m benchmarks.gate                       # the shipped head at its threshold, and at its best one
    python -m benchmarks.gate --head head.safetensors --part second
    python -m benchmarks.gate --world 400           # also three draws of facts that the threshold was not chosen on

Positives: the file's single-hop question of an edit in memory; right if that very edit is the best in scope. Negatives:
the question of an edit that was taken out; another relation of a subject in memory ("Who founded SpaceX?" against an
edit of its director), worded with the file's own templates; the same relation of a subject that memory does not know.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.multihop import fill
from benchmarks.table import percentile, rate, show
from evaluation.datasets import find, read
from knowledge.world import load_world
from memory.calibration import Question, choose, draw
from memory.embedder import Embedder, load_embedder
from memory.gate import Gate
from memory.lexicon import Lexicon
from memory.relation_words import RelationWords
from memory.schema import StoredFact
from memory.scope import ScopeHead
from memory.store import FactStore
from memory.vocabulary import bundled

TAKEN_OUT, OTHER_RELATION, OTHER_SUBJECT = "its fact taken out", "same subject, other relation", "unknown subject"
_WORLD_SEEDS = (10, 11, 12)  # other facts than those of the shipped calibration, seeds 0 to 2
_SYLLABLES = "ka ro mi te lan dor vi sen ul par osh nel bri tav".split()


def questions(facts: Sequence[StoredFact], lexicon: Lexicon, rng: random.Random) -> list[tuple[Question, int | None]]:
    """Questions, each with the fact that is taken out for it."""
    asked = [fact for fact in facts if fact.question and fact.subject in fact.question]
    template = {fact.relation: str(fact.question).replace(fact.subject, "{}") for fact in asked}
    held = {(fact.subject_key, fact.relation) for fact in facts}
    # relations that may be asked of one subject: of the same kind of thing, and not merely another name for its own
    vocabulary, table = bundled(), RelationWords.bundled()
    kinds = {
        group: frozenset().union(*(sense.kinds for sense in vocabulary.senses if sense.group == group))
        for group in table.groups
    }
    group = {name: table.groups[int(table.group_weights([text]).argmax())] for name, text in template.items()}
    beside = {
        name: [o for o in template if kinds[group[name]] & kinds[group[o]] and vocabulary.apart(group[name], group[o])]
        for name in template
    }
    out: list[tuple[Question, int | None]] = []
    for fact in asked:
        out.append((Question(str(fact.question), "in scope", fact.id), None))
        out.append((Question(str(fact.question), TAKEN_OUT), fact.id))
        others = [name for name in beside.get(fact.relation, ()) if (fact.subject_key, name) not in held]
        if others:
            text = template[rng.choice(sorted(map(str, others)))].replace("{}", fact.subject)
            out.append((Question(text, OTHER_RELATION), None))
        name = "".join(rng.sample(_SYLLABLES, 2)).title() + " " + "".join(rng.sample(_SYLLABLES, 3)).title()
        out.append((Question(template[fact.relation].replace("{}", name), OTHER_SUBJECT), None))
    return out


def scores(gate: Gate, given: Sequence[tuple[Question, int | None]]) -> tuple[list[float], list[float]]:
    """The gate's score of each question, and the seconds it took."""
    found, seconds = [], []
    for question, gone in given:
        start = time.perf_counter()
        verdict = gate.judge(question.text)
        seconds.append(time.perf_counter() - start)
        hits = [hit for hit in verdict.hits if hit.fact.id != gone]
        right = question.fact_id is None or (hits and hits[0].fact.id == question.fact_id)
        found.append(hits[0].score if hits and right else 0.0)
    return found, seconds


def rows_at(given: Sequence[Question], found: Sequence[float], threshold: float, where: str) -> list[list[Any]]:
    kinds = list(dict.fromkeys(question.kind for question in given))
    rows = []
    for kind in kinds:
        flags = [score >= threshold for question, score in zip(given, found, strict=True) if question.kind == kind]
        rows.append([where, f"{threshold:.3f}", kind, len(flags), rate(flags)])
    wrong = [score >= threshold for question, score in zip(given, found, strict=True) if question.fact_id is None]
    rows.append([where, f"{threshold:.3f}", "all negatives", len(wrong), rate(wrong)])
    return rows


def mquake(embedder: Embedder, head: ScopeHead, path: Path, part: str) -> list[list[Any]]:
    cases = read("mquake_hard", path=path)
    half = len(cases) // 2
    chosen = {"first": cases[:half], "second": cases[half:], "all": cases}[part]
    with FactStore("sqlite://", embedder, lexicon=Lexicon.bundled()) as store:
        fill(store, chosen)
        gate = Gate(store, head)
        given = questions(store.list(limit=None), store.lexicon, random.Random(0))
        found, seconds = scores(gate, given)
        plain = [question for question, _ in given]
        best = choose(plain, found, 0.01).threshold
        rows = rows_at(plain, found, gate.threshold, f"{path.name} ({part})")
        rows += rows_at(plain, found, best, f"{path.name} ({part}), its own threshold at 1 %")
        print(f"ms a query: median {1000 * percentile(seconds, 0.5):.1f}, p95 {1000 * percentile(seconds, 0.95):.1f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="a file in MQuAKE's format")
    parser.add_argument("--part", choices=("first", "second", "all"), default="all")
    parser.add_argument("--head", type=Path, help="another head than the shipped one, its calibration beside it")
    parser.add_argument("--world", type=int, default=0, metavar="N", help="also three draws of N facts of the world")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    embedder = load_embedder()
    head = ScopeHead.load(options.head, embedder) if options.head else ScopeHead.shipped(embedder)
    rows = mquake(embedder, head, options.path or find("mquake_hard"), options.part)
    for seed in _WORLD_SEEDS if options.world else ():
        given, found = draw(load_world(), embedder, head, facts=options.world, seed=seed)
        rows += rows_at(given, found, head.calibration.threshold, f"world's held-out phrasings, seed {seed}")
    columns = ("questions", "threshold", "kind", "n", "called in scope %")
    show("The gate", columns, rows, as_json=options.json)


if __name__ == "__main__":
    main()
