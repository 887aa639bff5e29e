"""Tasks of choices and of reference answers, with models whose preferences are known."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import EvalConfig
from codesieve.eval.kinds import choice, gold
from codesieve.eval.metrics import metrics
from codesieve.eval.records import Records
from codesieve.eval.session import Session
from codesieve.eval.tasks.items import Item
from codesieve.eval.tasks.schema import ChoiceTask, GoldTask, HeldoutPairsTask
from codesieve.eval.tasks.task import Task
from evaluation_world import FunctionBackend, eight_bits

ITEMS = (
    Item("a", "c1", "", {"question": "sky?", "choices": ["blue", "a very long red"], "gold": 0}),
    Item("b", "c1", "", {"question": "grass?", "choices": ["red", "green", "é"], "gold": [1, 2]}),
)


def task(items=ITEMS, **fields) -> Task:
    data = {"kind": "choice", "name": "colours", "data": {"files": ["-"]}, "prompt": "Q: {question}\nA:", **fields}
    return Task(ChoiceTask.model_validate(data), items, (), "fingerprint")


def session(folder: Path, backend: FunctionBackend, documents: pl.DataFrame | None = None, **config) -> Session:
    return Session(backend, Records(folder), EvalConfig(**config), documents)


def test_the_likeliest_choice_is_the_answer_and_all_that_normalisations_need_is_kept(tmp_path: Path) -> None:
    backend = FunctionBackend()  # every byte costs the same: the shortest choice wins
    asked = task()
    items, facts = choice.run(asked, session(tmp_path, backend))
    first, second = items.rows(named=True)
    assert (first["answer"], first["outcome"], first["score"]) == (" blue", "right", 1.0)
    assert (second["answer"], second["outcome"]) == (" é", "right")  # any of several right ones
    assert first["prompt"] == "Q: sky?\nA:"
    detail = json.loads(second["detail"])
    assert detail["characters"] == [3, 5, 1] and detail["bytes"] == [3, 5, 2]
    assert detail["gold"] == [1, 2] and detail["unconditional"] is None
    assert second["nats"] == eight_bits(" green") and second["bytes"] == 6
    found = metrics(items, {"colours": facts})["colours"]["choice"]
    assert found["accuracy"] == 1 and found["chance"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert "accuracy_pmi" not in found


def test_pmi_takes_what_a_choice_costs_anyway_out(tmp_path: Path) -> None:
    def cost(context: str, text: str) -> float:
        # "red" is common everywhere, "green" only after grass: raw prefers red, PMI green.
        table = {" red": 1.0, " green": 5.0 if "grass" in context else 9.0}
        return table.get(text, 20.0)

    asked = task(ITEMS[1:], unconditional="A:", metric="pmi")
    items, facts = choice.run(asked, session(tmp_path, FunctionBackend(cost=cost)))
    assert items["answer"].to_list() == [" green"]
    found = metrics(items, {"colours": facts})["colours"]["choice"]
    assert (found["accuracy"], found["accuracy_raw"], found["accuracy_pmi"]) == (1, 0, 1)


def test_a_choice_may_stand_in_the_context(tmp_path: Path) -> None:
    item = Item(
        "w",
        "w",
        "",
        {"before": "The cup fell off the", "after": " because it was wet.", "choices": ["a", "b"], "gold": 1},
    )
    asked = task((item,), prompt="{before} {choice}", continuation="{after}")
    backend = FunctionBackend(cost=lambda context, text: 1.0 if context.endswith(" b") else 2.0)
    items, _ = choice.run(asked, session(tmp_path, backend))
    assert items["outcome"].to_list() == ["right"]
    assert {request.text for request in backend.asked} == {" because it was wet."}


def test_a_diverged_model_is_an_error_that_names_the_item(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item a: log-likelihood is nan"):
        choice.run(task(), session(tmp_path, FunctionBackend(cost=lambda *_: math.nan)))


def test_pairs_are_made_of_the_held_out_documents(tmp_path: Path) -> None:
    text = "def larger(a, b):\n    if a < b:\n        return b\n    return a\n\n\ndef size(values):\n    return len(values) + 1\n"
    documents = pl.DataFrame(
        [
            {
                "id": str(n),
                "text": text.replace("larger", f"larger{n}"),
                "stream": "code",
                "language": "python",
                "family": f"f{n}",
            }
            for n in range(4)
        ]
    )
    config = HeldoutPairsTask.model_validate(
        {"kind": "choice", "name": "own-pairs", "pairs": "heldout", "languages": ["python"]}
    )
    asked = Task(config, (), (), "fingerprint")
    items, _ = choice.run(asked, session(tmp_path, FunctionBackend(), documents))
    assert items.height >= 4
    assert set(items["cluster"]) <= {f"f{n}" for n in range(4)}
    assert items["task"].unique().to_list() == ["own-pairs"]
    with pytest.raises(ValueError, match="no function in the held-out documents"):
        choice.run(asked, session(tmp_path / "none", FunctionBackend(), documents.with_columns(text=pl.lit("x = 1\n"))))


def test_reference_answers_are_scored_in_bytes_of_the_raw_text(tmp_path: Path) -> None:
    config = GoldTask.model_validate(
        {
            "kind": "bits_per_byte",
            "name": "gold",
            "data": {"files": ["-"]},
            "prompt": "{question} ",
            "continuation": "{answer}",
        }
    )
    items = (Item("1", "1", "", {"question": "q", "answer": "é"}), Item("2", "2", "", {"question": "q", "answer": ""}))
    found, _ = gold.run(Task(config, items, (), "f"), session(tmp_path, FunctionBackend()))
    assert found.select("item", "bytes", "prompt").rows() == [("1", 2, "q ")]
    assert metrics(found)["gold"]["gold"]["bits_per_byte"] == pytest.approx(8.0)
