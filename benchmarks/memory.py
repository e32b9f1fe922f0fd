"""The fact store and its index: adding, asking, memory, recall@10 against exact search, reopening.

    python -m benchmarks.memory                         # 1,000 and 10,000 facts
    python -m benchmarks.memory --sizes 100000          # some minutes of embedding
    python -m benchmarks.memory --million               # 1,000,000 facts; an hour or more on 2 cores

Facts are generated statements (relations and names of the bundled world, made many by numbering), their vectors real
ones of the default encoder. Queries are the facts' questions in other words, never asked before, so nothing is cached.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import percentile, show
from knowledge.relations import fill
from knowledge.world import load_world
from memory.embedder import Embedder, load_embedder
from memory.lexicon import Lexicon
from memory.store import FactStore
from memory.writing import Draft

_ADDS, _QUERIES, _BATCH = 50, 200, 1000


def statements(count: int, store: FactStore, rng: random.Random) -> Iterator[tuple[Draft, str]]:
    """Drafts with a question each."""
    world = load_world()
    relations = [relation for relation in world.relations.values() if world.objects_of_relation.get(relation.id)]
    names = [name for kind in world.entities.values() for name in kind]
    for number in range(count):
        relation = rng.choice(relations)
        subject = f"{rng.choice(names)} {rng.choice(names).split()[-1]} {number}"
        obj = rng.choice(world.objects_of_relation[relation.id])
        asked = fill(rng.choice(relation.question[1:]), subject)
        yield Draft(store.lexicon.word(subject, relation.id, obj), source="benchmark"), asked


def measure(count: int, embedder: Embedder, folder: Path) -> list[Any]:
    """One row of the table."""
    rng = random.Random(count)
    url = f"sqlite:///{folder / 'facts.db'}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    questions: list[str] = []
    with FactStore(url, embedder, lexicon=Lexicon.bundled()) as store:
        start = time.perf_counter()
        batch: list[Draft] = []
        for draft, question in statements(count, store, rng):
            batch.append(draft)
            if len(questions) < _QUERIES or rng.random() < 0.001:
                questions.append(question)
            if len(batch) == _BATCH:
                store.add_many(batch)
                batch = []
        store.add_many(batch)
        bulk = time.perf_counter() - start
        store.sync.wait()
        adds = []
        for number in range(_ADDS):
            begin = time.perf_counter()
            store.add(f"Newcomer {number}", "capital", f"Town {number}")
            adds.append(time.perf_counter() - begin)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        asked = rng.sample(questions, min(_QUERIES, len(questions)))
        embed, search, found = [], [], []
        vectors = []
        for question in asked:
            begin = time.perf_counter()
            vector = embedder.query(question)[0]
            middle = time.perf_counter()
            found.append([hit.fact.id for hit in store.nearest(vector, 10, ("default", "shared"))])
            search.append(time.perf_counter() - middle)
            embed.append(middle - begin)
            vectors.append(vector)
        recall = _recall(store, np.array(vectors), found)
        kind = store.sync.index.factory
        store.save_index()
    begin = time.perf_counter()
    FactStore(url, embedder, lexicon=Lexicon.bundled()).close()
    reopen = time.perf_counter() - begin
    both = [one + other for one, other in zip(embed, search, strict=True)]

    def ms(values: list[float]) -> str:
        return f"{1000 * percentile(values, 0.5):.1f} / {1000 * percentile(values, 0.95):.1f}"

    return [
        f"{count:,}", kind, ms(adds), f"{count / bulk:.0f}", ms(embed), ms(search), ms(both), f"{recall:.3f}",
        f"{memory:.0f}", f"{reopen:.2f}",
    ]  # fmt: skip


def _recall(store: FactStore, vectors: Any, found: list[list[int]]) -> float:
    """Share of the ten truly nearest facts that a search gave."""
    ids, best, scores = np.zeros(0, np.int64), None, None
    every = sorted(store.sync.index.ids())
    for start in range(0, len(every), 20_000):
        part = store.sync.full_vectors(every[start : start + 20_000])
        ids = np.fromiter(part, dtype=np.int64, count=len(part))
        likeness = vectors @ np.stack(list(part.values())).T
        labels = np.broadcast_to(ids, likeness.shape)
        if scores is not None:
            likeness, labels = np.concatenate((scores, likeness), 1), np.concatenate((best, labels), 1)
        order = np.argsort(-likeness, axis=1)[:, :10]
        scores, best = np.take_along_axis(likeness, order, 1), np.take_along_axis(labels, order, 1)
    assert best is not None
    return float(np.mean([len(set(mine) & set(true.tolist())) / 10 for mine, true in zip(found, best, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--million", action="store_true", help="also a million facts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    embedder = load_embedder()
    embedder.encode(["warm-up"])
    rows = []
    for count in [*options.sizes, *([1_000_000] if options.million else [])]:
        with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as folder:
            rows.append(measure(count, embedder, Path(folder)))
    columns = (
        "facts", "index", "add one, ms", "bulk, facts/s", "embed, ms", "search, ms", "query, ms", "recall@10", "MiB",
        "reopen, s",
    )  # fmt: skip
    show("Fact store", columns, rows, as_json=options.json, note="ms: median / p95")


if __name__ == "__main__":
    main()
