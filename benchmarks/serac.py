"""SERAC's counterfactual pointer: which part of an edit answers, on the world's held-out wordings.

python -m app train serac        # trains it
python -m benchmarks.serac       # measures the shipped one, with bootstrap intervals
"""

from __future__ import annotations

import argparse
import random

from benchmarks.table import rate, show
from knowledge.world import load_world
from memory.counterfactual import CHOICES, Counterfactual
from memory.counterfactual_training import cases
from memory.embedder import load_embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=6, help="measured edits a relation")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    world, embedder = load_world(), load_embedder()
    model = Counterfactual.shipped(embedder)
    held_out = cases(world, random.Random(1), options.each, unseen=True)
    found = [choice for choice, _ in model.choose([case for case, _ in held_out])]
    rows = []
    for kind in CHOICES:
        flags = [got == kind for got, (_, want) in zip(found, held_out, strict=True) if want == kind]
        rows.append((kind, len(flags), rate(flags)))
    show("SERAC: which part of the edit answers", ("choice", "n", "right %"), rows, as_json=options.json)


if __name__ == "__main__":
    main()
