"""The published data sets, read in their own formats into one record, :class:`~evaluation.datasets.cases.EditCase`.

    for case in read("counterfact", limit=100):
        case.edits, case.probes, case.multihop

    available()          # {"counterfact": DataSet(...), ...}: names, files, where each comes from

A file is looked for in the folder given, in ``PALIMPSEST_DATASETS``, ``data/datasets`` and ``../shared/datasets``.
Nothing is ever downloaded: an absent one gives an error that says where to get it and where to put it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.datasets import counterfact, knowedit, known, mquake, ripple, zsre
from evaluation.datasets.cases import EditCase, MultiHop
from knowledge.errors import InvalidInput, PalimpsestError, UnknownName

__all__ = ["DataSet", "DataSetMissing", "EditCase", "MultiHop", "available", "find", "read"]

ENVIRONMENT = "PALIMPSEST_DATASETS"
_ROME = "https://rome.baulab.info/data/dsets"
_MQUAKE = "https://github.com/princeton-nlp/MQuAKE/tree/main/datasets"
_RIPPLE = "https://github.com/edenbiran/RippleEdits/tree/main/data/benchmark"
_KNOWEDIT = "https://huggingface.co/datasets/zjunlp/KnowEdit"

Reader = Callable[[Any], Iterator[EditCase]]


class DataSetMissing(PalimpsestError):
    """The file is not there."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set: the names its file goes by, its home, and its reader."""

    name: str
    files: tuple[str, ...]
    home: str
    reader: Reader
    paper: str


_ALL = [
    DataSet("counterfact", ("counterfact.json",), f"{_ROME}/counterfact.json", counterfact.cases, "2202.05262"),
    DataSet(
        "multi_counterfact",
        ("multi_counterfact.json",),
        f"{_ROME}/multi_counterfact.json",
        counterfact.cases,
        "2210.07229",
    ),
    DataSet("zsre", ("zsre_mend_eval.json",), f"{_ROME}/zsre_mend_eval.json", zsre.cases, "2110.11309"),
    DataSet(
        "known_1000",
        ("known_1000.json", "known_1000_sample.json"),
        f"{_ROME}/known_1000.json",
        known.cases,
        "2202.05262",
    ),
    DataSet("mquake_cf_3k", ("MQuAKE-CF-3k-v2.json", "MQuAKE-CF-3k.json"), _MQUAKE, mquake.cases, "2305.14795"),
    DataSet("mquake_cf", ("MQuAKE-CF.json",), _MQUAKE, mquake.cases, "2305.14795"),
    DataSet("mquake_t", ("MQuAKE-T.json",), _MQUAKE, mquake.cases, "2305.14795"),
    DataSet(
        "mquake_hard",
        ("mquake_hard.json", "MQuAKE-hard.json", "mquake_hard_sample.json"),
        _MQUAKE,
        mquake.cases,
        "2305.14795",
    ),
    DataSet("ripple_popular", ("popular.json", "ripple_popular.json"), _RIPPLE, ripple.cases, "2307.12976"),
    DataSet("ripple_random", ("random.json", "ripple_random.json"), _RIPPLE, ripple.cases, "2307.12976"),
    DataSet("ripple_recent", ("recent.json", "ripple_recent.json"), _RIPPLE, ripple.cases, "2307.12976"),
    DataSet(
        "knowedit_recent", ("recent_test.json", "wiki_recent/recent_test.json"), _KNOWEDIT, knowedit.cases, "2401.01286"
    ),
    DataSet(
        "knowedit_counterfact",
        ("test_cf.json", "wiki_counterfact/test_cf.json"),
        _KNOWEDIT,
        knowedit.cases,
        "2401.01286",
    ),
    DataSet(
        "knowedit_zsre", ("ZsRE-test-all.json", "ZsRE/ZsRE-test-all.json"), _KNOWEDIT, knowedit.cases, "2401.01286"
    ),
    DataSet(
        "knowedit_wikibio",
        ("wikibio-test-all.json", "WikiBio/wikibio-test-all.json"),
        _KNOWEDIT,
        knowedit.cases,
        "2401.01286",
    ),
    DataSet(
        "knowedit_sanitation",
        ("trivia_qa_test.json", "Sanitation/trivia_qa_test.json"),
        _KNOWEDIT,
        knowedit.sanitation,
        "2401.01286",
    ),
]


def available() -> dict[str, DataSet]:
    """All data sets that can be read, by name, whether their files are here or not."""
    return {item.name: item for item in _ALL}


def folders(folder: Path | None = None) -> list[Path]:
    """Where files are looked for, in this order."""
    given = [folder] if folder else []
    named = [Path(os.environ[ENVIRONMENT])] if os.environ.get(ENVIRONMENT) else []
    root = Path(__file__).resolve().parents[2]
    return [*given, *named, Path("data/datasets"), root / "data" / "datasets", root.parent / "shared" / "datasets"]


def find(name: str, folder: Path | None = None) -> Path:
    """The file of a data set.

    Raises:
        UnknownName: no data set has this name.
        DataSetMissing: its file is in none of the folders.
    """
    known_sets = available()
    if name not in known_sets:
        raise UnknownName("data set", name, known_sets)
    item = known_sets[name]
    for place in folders(folder):
        for file in item.files:
            if (place / file).is_file():
                return place / file
    raise DataSetMissing(
        f"The data set {name!r} (arXiv {item.paper}) is not here. Get {item.files[0]} from {item.home} and put it into "
        f"{folder or Path('data/datasets')}, or set {ENVIRONMENT} to its folder. It is never downloaded by itself."
    )


def read(
    name: str, *, folder: Path | None = None, path: Path | None = None, limit: int | None = None
) -> list[EditCase]:
    """The cases of a data set.

    Args:
        folder: where to look first.
        path: this very file.
        limit: so many cases at most.

    Raises:
        DataSetMissing: the file is not there.
        InvalidInput: the file does not have the data set's format; the message says where it does not fit.
    """
    file = path or find(name, folder)
    if not file.is_file():
        raise DataSetMissing(f"There is no file {file}. Get it from {available()[name].home}.")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        hint = " It is a Git LFS pointer: fetch the real file." if file.stat().st_size < 500 else ""
        raise InvalidInput(f"{file} is not JSON ({error}).{hint}") from error
    found: list[EditCase] = []
    cases = available()[name].reader(raw)
    try:
        for case in itertools.islice(cases, limit):
            found.append(case)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidInput(
            f"{file.name} does not have the format of {name}: case {len(found)} lacks or mistypes {error}. "
            f"The format is that of {available()[name].home}."
        ) from error
    return found
