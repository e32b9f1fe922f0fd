"""What a user sees: do edits in memory show in the answers, and do other answers stay, strategy by strategy?

    python -m benchmarks.answers                      # 100 counterfactual facts of the world, the bundled model
    python -m benchmarks.answers --facts 200 --strategies ike serac

Facts and questions are made as for the gate's calibration, in a draw of their own: wordings that no training saw, and
for every fact other questions (the same subject's other relations, other subjects, unrelated ones), which must get
the answer that they get without any memory, right or wrong. Everything goes through the gate.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.table import percentile, rate, show
from knowledge.text import answer_matches
from knowledge.world import load_world
from language_model.model import LanguageModel
from memory.calibration import Question, ask_about, choose_facts
from memory.embedder import load_embedder
from memory.gate import Gate
from memory.lexicon import Lexicon
from memory.registry import get_strategy
from memory.router import Router
from memory.store import FactStore
from memory.strategies.base import Strategy
from memory.strategies.ike import IKE, IKEOptions
from memory.writing import Draft

SEED = 30  # other facts than those of the gate's threshold and of its benchmark


def strategies(names: Sequence[str], lm: LanguageModel, gate: Gate) -> list[tuple[str, Strategy | Router]]:
    """The strategies by name, IKE twice, as published and with its short answers checked; and the router's choice."""
    out: list[tuple[str, Strategy | Router]] = []
    for name in names:
        if name == "ike":
            out.append(("IKE, as published", IKE(lm, gate, IKEOptions(checked=False))))
        strategy = get_strategy(name, lm, gate)
        out.append(("IKE, its answers checked" if name == "ike" else strategy.title.partition(":")[0], strategy))
    return [*out, ("the router's choice, as in the chat", Router(lm, gate))]


def measure(
    strategy: Strategy | Router,
    questions: Sequence[Question],
    wanted: dict[int, tuple[str, ...]],
    before: Sequence[str],
) -> list[Any]:
    """One row: edits that show, other answers that stay, by kind and together, and milliseconds an answer."""
    shown: list[bool] = []
    stayed: dict[str, list[bool]] = {}
    seconds = []
    for question, old in zip(questions, before, strict=True):
        start = time.perf_counter()
        answer = strategy.answer(question.text).answer
        seconds.append(time.perf_counter() - start)
        if question.fact_id is not None:
            new, *others = wanted[question.fact_id]
            shown.append(answer_matches(answer, new, others))
        else:
            stayed.setdefault(question.kind, []).append(answer_matches(answer, old))
    every = [flag for flags in stayed.values() for flag in flags]
    hardest = stayed.get("same subject, other relation", [])
    return [rate(shown), rate(every), rate(hardest), f"{1000 * percentile(seconds, 0.5):.0f}"]


def run(lm: LanguageModel, facts: int, names: Sequence[str], tell: Callable[[str], None] = print) -> list[list[Any]]:
    """All rows; ``n`` are the edits and the other questions."""
    world, rng, embedder = load_world(), random.Random(SEED), load_embedder()
    with FactStore("sqlite://", embedder, lexicon=Lexicon.of(world)) as store:
        chosen = choose_facts(world, facts, rng)
        drafts = [Draft(store.lexicon.word(fact.subject, fact.relation, new)) for fact, new in chosen]
        ids = [written.fact_id for written in store.add_many(drafts)]
        wanted = {at: (new, *world.aliases_of(new)) for at, (_, new) in zip(ids, chosen, strict=True)}
        questions = ask_about(world, dict(zip((fact for fact, _ in chosen), ids, strict=True)), rng)
        before = lm.generate([[{"role": "user", "content": question.text}] for question in questions])
        gate, rows = Gate(store), []
        for question in questions:  # so that no strategy pays for what the next ones find in the caches
            gate.judge(question.text)
        for title, strategy in strategies(names, lm, gate):
            tell(f"{title} ...")
            rows.append([title, len(ids), len(questions) - len(ids), *measure(strategy, questions, wanted, before)])
        return rows


def main() -> None:
    import sys

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--strategies", nargs="+", default=["ike", "serac", "graph_walk"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lm = LanguageModel.load(options.model)
    rows = run(lm, options.facts, options.strategies, lambda text: print(text, file=sys.stderr))
    columns = (
        "strategy", "edits", "other questions", "edits that show, %", "other answers that stay, %",
        "of them same subject, %", "ms an answer",
    )  # fmt: skip
    show("Answers", columns, rows, as_json=options.json)


if __name__ == "__main__":
    main()
