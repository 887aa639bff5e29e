"""Programs with a hole: the prompt's format, the middle, and the share that needs none."""

import json
from dataclasses import dataclass, field

from codesieve.config import EvalConfig
from codesieve.eval.backends.protocol import Generated
from codesieve.eval.kinds import infill
from codesieve.eval.notes import cut_notes
from codesieve.eval.records import Records
from codesieve.eval.session import Session
from codesieve.eval.tasks.items import Item
from codesieve.eval.tasks.schema import InfillTask
from codesieve.eval.tasks.task import Task

CHECK = "def check(candidate):\n    assert candidate([3, 1]) == [1, 3]\n"
PREFIX = 'def ordered(values):\n    """Sort."""\n    values = list(values)\n'


def item(name, reference, suffix="    return values\n"):
    fields = {"prefix": PREFIX, "suffix": suffix, "reference": reference, "tests": CHECK, "entry_point": "ordered"}
    return Item(f"{name}", "ordered", "", fields)


ITEMS = (item("a", "    values.sort()\n"), item("b", "    # \n", "    return sorted(values)\n"))
TASK = Task(InfillTask(kind="infill", name="i", data={"files": ["i.jsonl"]}), ITEMS, (), "fingerprint")


@dataclass
class Scripted:
    answers: dict
    asked: list = field(default_factory=list)
    identity: str = "scripted"
    facts: dict = field(default_factory=dict)

    def generate(self, requests, sampling, done=None, known=()):
        self.asked += [(each.prompt, sampling.stop_tokens) for each in requests]
        found = [Generated(self.answers[each.key], 3, "stop") for each in requests]
        done(range(len(requests)), found)
        return found


def test_the_whole_program_is_judged_and_the_floor_is_reported(tmp_path, monkeypatch):
    chosen = type("Format", (), {"name": "plain"})
    monkeypatch.setattr(infill, "resolve_format", lambda name, backend: chosen)
    monkeypatch.setattr(infill, "infill_prompt", lambda chosen, prefix, suffix: f"{prefix}<hole>{suffix}")
    monkeypatch.setattr(infill, "stop_tokens_of", lambda chosen: ("<eom>",))
    backend = Scripted({"a": "    values.reverse()\n", "b": ""})
    with Records(tmp_path) as records:
        items, facts = infill.run(TASK, Session(backend, records, EvalConfig(sandbox_level=1)))
    assert items.select("item", "outcome", "score", "stream", "cluster").rows() == [
        ("a", "passed", 1.0, "infill", "ordered"),
        ("b", "passed", 1.0, "infill", "ordered"),
    ]
    assert facts["empty_rate"] == 0.5
    assert facts["reference_pass_rate"] == 1.0
    assert facts["format"] == "plain"
    assert (facts["max_new_tokens"], facts["max_new_tokens_asked"]) == (96, 96)
    assert backend.asked[0] == (f"{PREFIX}<hole>    return values\n", ("<eom>",))
    assert items["detail"].to_list() == [None, None]


def test_a_middle_that_breaks_the_program_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(infill, "resolve_format", lambda name, backend: type("Format", (), {"name": "plain"}))
    monkeypatch.setattr(infill, "infill_prompt", lambda chosen, prefix, suffix: prefix)
    monkeypatch.setattr(infill, "stop_tokens_of", lambda chosen: ())
    with Records(tmp_path) as records:
        backend = Scripted({"a": "    values.sort(\n", "b": "    values = 5\n"})
        items, _ = infill.run(TASK, Session(backend, records, EvalConfig(sandbox_level=1)))
    assert items["outcome"].to_list() == ["syntax_error", "exception"]
    assert "TypeError" in json.loads(items["detail"][1])["why"]


def test_a_small_model_answers_in_a_quarter_of_its_window_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(infill, "resolve_format", lambda name, backend: type("Format", (), {"name": "plain"}))
    monkeypatch.setattr(infill, "infill_prompt", lambda chosen, prefix, suffix: prefix)
    monkeypatch.setattr(infill, "stop_tokens_of", lambda chosen: ())
    with Records(tmp_path) as records:
        backend = Scripted({"a": "", "b": ""}, facts={"context_tokens": 200})
        _, facts = infill.run(TASK, Session(backend, records, EvalConfig(sandbox_level=1)))
    assert (facts["max_new_tokens"], facts["max_new_tokens_asked"]) == (50, 96)
    assert cut_notes(facts) == ["answers of at most 50 tokens for the model's window, not 96"]
