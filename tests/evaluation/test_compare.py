"""The comparison: right rows and verdicts, one overlay a row, refusals, cancelling; on a model of a few sentences."""

from __future__ import annotations

import csv
import io
import json
from threading import Event
from typing import Any

import pytest

from evaluation.compare import compare, completion
from evaluation.methods import Method, Treatment, available, base, method
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError, UnknownName
from knowledge.probes import Amounts
from knowledge.world import load_world
from tests.evaluation.fakes import FakeModel, editing

WORLD = load_world()
EDIT = WORLD.edit("Eiffel Tower", "located_in", "Rome")
ALIASES = ("Eiffel Tower", *WORLD.aliases_of("Eiffel Tower"))
AMOUNTS = Amounts(4, 3, 0, 2, 2, 0, 0)
TRUTH = {fact.subject: fact.object for fact in WORLD.by_relation["located_in"]} | dict.fromkeys(ALIASES, "Paris")
GOOD = dict.fromkeys(ALIASES, "Rome")
CAREFUL = editing("careful", GOOD)
BLUNT = editing("blunt", dict.fromkeys(TRUTH, "Rome"))


def run(methods: list[Any], **more: Any) -> Any:
    lm = more.pop("lm", None) or FakeModel(TRUTH)
    return compare(lm, more.pop("edits", [EDIT]), methods, WORLD, amounts=more.pop("amounts", AMOUNTS), **more)


def value(found: Any, name: str, metric: str) -> float:
    return found.row(name).cells[metric].value


def test_each_method_gets_the_figures_it_deserves() -> None:
    found = run([base(), CAREFUL, BLUNT])
    assert [row.method for row in found.rows] == ["base", "careful", "blunt"]
    assert [value(found, "base", m) for m in ("efficacy", "generality", "portability")] == [0, 0, 0]
    assert [value(found, "careful", m) for m in ("efficacy", "generality", "portability")] == [1, 1, 1]
    assert found.row("careful").kinds["locality_neighbour"].value == 1
    assert found.row("blunt").kinds["locality_neighbour"].value == 0
    assert value(found, "blunt", "efficacy") == 1
    for row in found.rows:
        assert row.cells["efficacy"].n == 2
        assert row.seconds is not None


def test_the_other_protocols_stand_beside_not_inside() -> None:
    found = run([CAREFUL])
    assert found.row("careful").probability["efficacy"].value == 1
    assert found.row("base").probability["efficacy"].value == 0
    assert found.row("careful").token_accuracy["generality"].value == 1
    assert found.row("careful").probability["locality"].value == pytest.approx(
        sum(p.answers["careful"].probability for p in found.probes if p.probe.metric == "locality") / 5
    )
    assert not run([CAREFUL], probability=False).row("careful").probability["efficacy"].n


def test_the_unedited_model_is_always_there_first() -> None:
    assert [row.method for row in run([CAREFUL]).rows] == ["base", "careful"]
    assert [row.method for row in run([CAREFUL, base()]).rows] == ["base", "careful"]


def test_one_batch_with_an_overlay_a_row() -> None:
    lm = FakeModel(TRUTH)
    found = run([CAREFUL, BLUNT], lm=lm)
    assert len(lm.calls[0]) == 3 * len(found.probes)
    assert {id(overlay) for overlay in lm.calls[0]} == {id(None), id(GOOD), id(BLUNT.make(*[None] * 4).overlay)}  # type: ignore[arg-type]


def test_every_answer_is_kept_with_its_verdict() -> None:
    found = run([CAREFUL])
    for item in found.probes:
        assert set(item.answers) == {"base", "careful"}
        for answer in item.answers.values():
            assert answer.right == (answer.answer == item.expected)


def test_where_the_world_does_not_say_the_unedited_answer_is_right() -> None:
    edit = Edit("{} is located in", "Zorblax Tower", "Rome", relation="located_in")
    amounts = Amounts(0, 0, 4, 0, 0, 0, 0)
    tidy, loud = editing("tidy", {}), editing("loud", {"Zorblax Tower": "Rome"})
    asked = [edit, Edit("{}'s capital is", "Zorbland", "Rome", relation="capital")]
    found = run([tidy, loud], edits=asked, amounts=amounts)
    unsaid = [item for item in found.probes if item.probe.expected is None]
    assert unsaid
    assert all(item.expected == "I don't know" for item in unsaid)
    assert all(item.answers["tidy"].right for item in unsaid)


def test_a_refusal_stands_in_its_row_and_the_others_go_on() -> None:
    def refuse(*_: Any) -> Treatment:
        raise PalimpsestError("This subject cannot be edited.")

    found = run([Method("stubborn", "Stubborn", refuse), CAREFUL])
    assert found.row("stubborn").error == "This subject cannot be edited."
    assert value(found, "careful", "efficacy") == 1
    assert all("stubborn" not in item.answers for item in found.probes)


def test_a_method_with_a_prompt_or_steps_of_its_own() -> None:
    prompting = Method("told", "Told", lambda *_: Treatment(prompt=lambda q: f"Zorb? {q}"))
    stepping = Method("steps", "Steps", lambda *_: Treatment(answer=lambda q: "Rome"))
    found = run([prompting, stepping], lm=FakeModel({"Zorb": "Rome"} | TRUTH))
    assert value(found, "told", "efficacy") == 1
    assert value(found, "steps", "efficacy") == 1
    assert found.row("steps").probability["efficacy"].n == 0, "a chain of steps has no probability"


def test_treatments_are_let_go_of_even_after_an_error() -> None:
    closed: list[str] = []

    def broken(question: str) -> str:
        raise RuntimeError("bug")

    kept = Method("kept", "Kept", lambda *_: Treatment(answer=broken, close=lambda: closed.append("kept")))
    with pytest.raises(RuntimeError):
        run([kept])
    assert closed == ["kept"]


def test_cancelling_gives_the_methods_that_are_finished() -> None:
    stop = Event()
    lm = FakeModel(TRUTH, on_generate=stop.set)
    found = run([CAREFUL], lm=lm, cancel=stop)
    assert found.cancelled
    assert found.rows == ()
    done = Event()
    done.set()
    assert run([CAREFUL], cancel=done).rows == ()


def test_cancelling_between_batches_keeps_what_is_complete() -> None:
    stop = Event()
    many = Amounts(40, 60, 0, 4, 2, 0, 0)
    lm = FakeModel(TRUTH)
    lm.on_generate = lambda: stop.set() if len(lm.calls) == 2 else None
    found = run([CAREFUL, BLUNT], lm=lm, cancel=stop, amounts=many)
    assert found.cancelled
    assert [row.method for row in found.rows] == ["base"]


def test_progress_goes_forward_and_ends() -> None:
    told: list[tuple[float, str]] = []
    run([CAREFUL, BLUNT], progress=lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any("CAREFUL" in what for _, what in told)


def test_the_same_seed_asks_the_same() -> None:
    first, again = run([CAREFUL], seed=3), run([CAREFUL], seed=3)
    assert [p.probe for p in first.probes] == [p.probe for p in again.probes]
    assert [row.cells for row in first.rows] == [row.cells for row in again.rows]


def test_probes_of_the_users_own() -> None:
    from knowledge.probes import Probe

    mine = Probe("efficacy", "Eiffel Tower, where?", None, "Rome", (), True)
    found = run([CAREFUL], probes=lambda edit: [mine])
    assert [item.probe for item in found.probes] == [mine]


def test_several_facts_count_together() -> None:
    other = WORLD.edit("Brandenburg Gate", "located_in", "Oslo")
    found = run([editing("both", {"Eiffel Tower": "Rome", "Brandenburg Gate": "Oslo"})], edits=[EDIT, other])
    assert found.row("both").cells["efficacy"].n == 4
    assert value(found, "both", "efficacy") == 1
    assert found.row("both").cells["fluency"].n == 2


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        run([base()], edits=[])
    with pytest.raises(UnknownName, match="Did you mean 'rome'"):
        run(["rmoe"])


def test_json_and_csv_say_the_same() -> None:
    found = run([CAREFUL])
    data = json.loads(json.dumps(found.to_dict()))
    assert data["rows"][1]["cells"]["efficacy"]["value"] == 1.0
    assert data["probes"][0]["answers"]["careful"]["right"] is True
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    cell = next(r for r in rows if (r["method"], r["protocol"], r["metric"]) == ("careful", "generation", "efficacy"))
    assert (cell["value"], cell["n"]) == ("1.0", "2")
    probes = list(csv.DictReader(io.StringIO(found.probes_csv())))
    assert len(probes) == len(found.probes)
    assert probes[0]["careful right"] == "True"


def test_every_method_of_the_program_is_listed_without_loading_anything() -> None:
    rows = available()
    assert next(iter(rows)) == "base"
    assert {"ike", "mello", "rome", "r-rome"} <= set(rows)
    assert rows["r-rome"].family == "weights"
    assert rows["ike"].family == "memory"
    assert method("rome").title == "ROME"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Rome. It is a city.", "Rome"),
        ("Washington, D.C.", "Washington, D.C."),
        ("Rome\nNext", "Rome"),
        ("St. Petersburg", "St. Petersburg"),
        ("Rome", "Rome"),
    ],
)
def test_a_completion_is_read_up_to_its_first_end(text: str, said: str) -> None:
    assert completion(text) == said


def test_a_completion_that_is_the_expected_name_is_read_whole() -> None:
    assert completion("K. It is soft.", ["K"]) == "K"
    assert completion("Roma; and so on", ["Rome", "Roma"]) == "Roma"
    assert completion("Romania", ["Roma"]) == "Romania"
