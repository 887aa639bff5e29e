"""Task files: strict, fingerprinted, and loud about mistakes."""

import json
from pathlib import Path

import pytest
from codesieve.eval.tasks import BitsPerByteTask, CodeTask, load_task, load_tasks
from codesieve.strict import ConfigError

PROBLEM = {
    "name": "add",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "tests": [{"args": [1, 2], "expected": 3}],
    "reference": "    return a + b\n",
    "difficulty": "easy",
}


def code_task(folder: Path, *problems: object, extra: str = "") -> str:
    path = folder / "mine.yaml"
    path.write_text(f"kind: code\nname: mine\nproblems: mine.jsonl\n{extra}")
    (folder / "mine.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    return str(path)


def test_the_shipped_heldout_task_loads_by_name() -> None:
    task = load_task("heldout")
    assert isinstance(task.config, BitsPerByteTask)
    assert task.config.streams == ("code", "text")
    assert task.config.max_bytes is not None


def test_problems_are_read_from_beside_the_task(tmp_path: Path) -> None:
    task = load_task(code_task(tmp_path, PROBLEM))
    assert isinstance(task.config, CodeTask)
    assert [problem.name for problem in task.problems] == ["add"]
    assert task.problems[0].reference == "    return a + b\n"


def test_the_fingerprint_covers_the_task_and_its_data(tmp_path: Path) -> None:
    first = load_task(code_task(tmp_path, PROBLEM)).fingerprint
    assert load_task(code_task(tmp_path, PROBLEM)).fingerprint == first
    assert load_task(code_task(tmp_path, {**PROBLEM, "tests": []})).fingerprint != first
    assert load_task(code_task(tmp_path, PROBLEM, extra="version: 2\n")).fingerprint != first


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'mine.yaml: unknown key "stopp" \(did you mean "stop"\?\)'):
        load_task(code_task(tmp_path, PROBLEM, extra="stopp: []\n"))
    with pytest.raises(ConfigError, match=r'mine.jsonl: line 2: unknown key "promt" \(did you mean "prompt"\?\)'):
        load_task(code_task(tmp_path, PROBLEM, {**PROBLEM, "name": "b", "promt": ""}))


def test_an_unknown_kind_or_task_names_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("kind: bits_per_bite\nname: x\n")
    with pytest.raises(ConfigError, match=r'unknown task kind "bits_per_bite" \(did you mean "bits_per_byte"\?\)'):
        load_task(str(path))
    with pytest.raises(ConfigError, match=r'unknown task "heldoud" \(did you mean "heldout"\?\)'):
        load_task("heldoud")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no problems"),
        ("{", "line 1: not valid JSON"),
        (json.dumps(PROBLEM) + "\n\n" + json.dumps(PROBLEM), 'line 3: a problem named "add" came before'),
        (json.dumps({"name": "x"}), "line 1: prompt: Field required"),
    ],
)
def test_a_wrong_problem_file_is_named_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    path = code_task(tmp_path)
    (tmp_path / "mine.jsonl").write_text(lines)
    with pytest.raises(ConfigError, match=message):
        load_task(path)


def test_a_missing_problem_file_is_named(tmp_path: Path) -> None:
    path = code_task(tmp_path)
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"mine\.jsonl: No such file"):
        load_task(path)


def test_documents_of_any_length_are_not_allowed_to_decide(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("kind: bits_per_byte\nname: x\n")
    with pytest.raises(ConfigError, match="give max_bytes or max_tokens"):
        load_task(str(path))
    path.write_text("kind: bits_per_byte\nname: x\nmax_tokens: 64\npart: anywhere\n")
    with pytest.raises(ConfigError, match='part "anywhere" needs max_bytes'):
        load_task(str(path))


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice: heldout"):
        load_tasks(["heldout", "heldout"])
