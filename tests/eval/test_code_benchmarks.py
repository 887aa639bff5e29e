"""Real benchmarks: all references pass apart from the candidate, and no trick passes anything."""

import json
import os

from benchmark_data import benchmark
from codesieve.config import EvalConfig
from codesieve.eval.backends.replay import ReplayBackend
from codesieve.eval.kinds import code
from codesieve.eval.kinds.execution import calibrate, trial_of
from codesieve.eval.kinds.replay import replay
from codesieve.eval.records import Records
from codesieve.eval.samples import read_samples
from codesieve.eval.session import Session
from codesieve.eval.tasks.load import load_task
from codesieve.sandbox.judge import judge_all
from codesieve.sandbox.limits import Limits

TRICKS = {
    "equal to everything": (
        "class Evil:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __lt__(self, other): return True\n    __le__ = __gt__ = __ge__ = __contains__ = __lt__\n"
        "    def __bool__(self): return True\n    def __hash__(self): return 0\n    def __iter__(self): return iter(())\n"
        "    def __len__(self): return 0\n    def __abs__(self): return 0\n    def __sub__(self, other): return 0\n"
        "    __rsub__ = __getitem__ = __call__ = __sub__\n"
        "def {name}(*_, **__):\n    return Evil()\n"
    ),
    "hard exit": "import os\ndef {name}(*_, **__):\n    os._exit(0)\n",
    "hard exit when loaded": "import os\nos._exit(0)\n",
    "exit": "import sys\ndef {name}(*_, **__):\n    sys.exit(0)\n",
    "exit when loaded": "raise SystemExit(0)\n",
    "swallowed": "def {name}(*_, **__):\n    raise AssertionError\n",
    "a frame's names": (
        "import sys\ndef {name}(*arguments, **__):\n    frame = sys._getframe()\n    while frame:\n"
        "        for found in [*frame.f_locals.values(), *frame.f_globals.values()]:\n"
        "            if getattr(found, '__name__', '') == 'check' or 'assert' in str(found)[:2000]:\n"
        "                return found\n        frame = frame.f_back\n"
    ),
    "patched Python": (
        "import builtins, math\nbuiltins.AssertionError = Exception\nbuiltins.abs = builtins.round = lambda *_: 0\n"
        "builtins.sorted = builtins.tuple = lambda *_: None\nmath.fabs = lambda *_: 0\nmath.isclose = lambda *_, **__: True\n"
        "def {name}(*_, **__):\n    return None\n"
    ),
    "a forged answer": (
        "import os, sys\ndef {name}(*_, **__):\n    for number in range(3, 64):\n        try:\n"
        '            os.write(number, b\'{{"done":"passed","detail":""}}\\n\')\n        except OSError:\n            pass\n'
    ),
    "an empty body": "def {name}(*_, **__):\n    pass\n",
    "a constant": "def {name}(*_, **__):\n    return True\n",
}


def references(name, file):
    task = load_task(name, [benchmark(file).parents[1]])
    items = task.items
    found = calibrate(task, items, workers=os.cpu_count() or 1)
    assert (found.rate, found.failed) == (1.0, ())
    return len(items)


def test_all_164_references_of_humaneval_pass():
    assert references("humaneval", "HumanEval.jsonl.gz") == 164


def test_all_500_references_of_mbpp_pass_one_of_them_weakly():
    assert references("mbpp", "mbpp_test.jsonl.gz") == 500
    assert load_task("mbpp", [benchmark("mbpp_test.jsonl.gz")]).config.tests.weak == ("367",)


def test_all_8652_references_of_the_infilling_sets_pass():
    assert references("humaneval-infill-light", "HumanEval-RandomSpanInfillingLight.jsonl.gz") == 164
    assert references("humaneval-infill-single-line", "HumanEval-SingleLineInfilling.jsonl.gz") == 1033
    assert references("humaneval-infill-multi-line", "HumanEval-MultiLineInfilling.jsonl.gz") == 5815
    assert references("humaneval-infill-random-span", "HumanEval-RandomSpanInfilling.jsonl.gz") == 1640


def test_the_references_as_samples_pass_in_an_evaluation_as_in_a_replay(tmp_path):
    task = load_task("humaneval", [benchmark("HumanEval.jsonl.gz")])
    path = tmp_path / "references.jsonl"
    rows = [{"task_id": item.id, "completion": item.fields["reference"]} for item in task.items]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Records(tmp_path) as records:
        session = Session(ReplayBackend(path), records, EvalConfig(), workers=os.cpu_count() or 1)
        items, _ = code.run(task, session)
    assert items["score"].sum() == replay(task, read_samples(path), os.cpu_count() or 1)["passed"] == 164


def test_no_trick_passes_an_item_of_humaneval():
    task = load_task("humaneval", [benchmark("HumanEval.jsonl.gz")])
    limits = Limits(cpu_seconds=1.0)
    named, trials = [], []
    for number, (trick, source) in enumerate(TRICKS.items()):
        for item in task.items[number % 8 :: 8]:
            named.append((trick, item.id))
            program = item.fields["prompt"] + "    pass\n" + source.format(name=item.fields["entry_point"])
            trials.append(trial_of(task, item, program, limits))
    outcomes = judge_all(trials, workers=2, rerun_timeouts=False)
    assert [name for name, found in zip(named, outcomes, strict=True) if found.status == "passed"] == []
