"""What is known is not asked again, in whatever order a killed run left it."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from codesieve.config import EvalConfig
from codesieve.eval.backends.protocol import Continuation, Generated, Generation, Likelihood, Sampling, Scored
from codesieve.eval.records import Records
from codesieve.eval.session import Session
from codesieve.eval.tasks.items import Item
from codesieve.eval.tasks.schema import ChoiceTask
from codesieve.eval.tasks.task import Task
from codesieve.sandbox.run import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = ChoiceTask.model_validate(
    {"kind": "choice", "name": "t", "data": {"files": ["t.jsonl"]}, "prompt": "{question}"}
)


class Killed(BaseException):
    """Stands for a process that ends in the middle."""


@dataclass
class CountingBackend:
    """Two requests a batch; the answer is a function of the request alone. Dies after some batches."""

    batches: int = 10**9
    asked: list[str] = field(default_factory=list)
    identity: str = "counting"
    facts: dict = field(default_factory=dict)

    def _each(self, requests, text, answer, done, known):
        results = [None] * len(requests)
        for start in range(0, len(requests), 2):
            places = range(start, min(start + 2, len(requests)))
            if all(place in known for place in places):
                continue
            if self.batches == 0:
                raise Killed
            self.batches -= 1
            self.asked += [text(requests[place]) for place in places]
            for place in places:
                results[place] = answer(requests[place])
            done(list(places), [results[place] for place in places])
        return results

    def loglikelihood(self, requests, done=None, known=()):
        return self._each(requests, lambda r: r.text, lambda r: Scored(len(r.text), 1, False), done, known)

    def rolling(self, texts, max_tokens=None, done=None, known=()):
        return self._each(texts, str, lambda t: Likelihood(len(t), len(t), max_tokens or 1), done, known)

    def generate(self, requests, sampling, done=None, known=()):
        return self._each(
            requests, lambda r: r.key, lambda r: Generated(f"{r.key}{r.sample}{sampling.seed}", 1, "end"), done, known
        )


def task_of(fingerprint: str = "task") -> Task:
    return Task(CONFIG, (), (), fingerprint)


def session_of(folder: Path, backend, **config) -> Session:
    return Session(backend, Records(folder), EvalConfig(**config))


TEXTS = st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=9, unique=True)


@settings(deadline=None, max_examples=30)
@given(texts=TEXTS, survived=st.integers(0, 5))
def test_an_interrupted_run_ends_with_the_same_answers_and_asks_only_what_is_missing(
    tmp_path_factory, texts, survived
) -> None:
    folder = tmp_path_factory.mktemp("session")
    requests = [Continuation("", text) for text in texts]
    dying = CountingBackend(batches=survived)
    with contextlib.suppress(Killed):
        session_of(folder, dying).loglikelihood(task_of(), requests, texts)
    second = CountingBackend()
    found = session_of(folder, second).loglikelihood(task_of(), requests, texts)
    assert [each.nats for each in found] == [len(text) for text in texts]
    assert not set(dying.asked) & set(second.asked)
    whole = CountingBackend()
    session_of(tmp_path_factory.mktemp("whole"), whole).loglikelihood(task_of(), requests, texts)
    assert dying.asked + second.asked == whole.asked


def test_the_order_of_the_items_changes_no_batch(tmp_path: Path) -> None:
    texts = ["c", "a", "b", "e", "d"]
    for number, order in enumerate((texts, texts[::-1])):
        backend = CountingBackend()
        found = session_of(tmp_path / str(number), backend).rolling(task_of(), order, order)
        assert [each.nats for each in found] == [1] * 5
        assert backend.asked == sorted(texts)


@pytest.mark.parametrize("change", ["model", "task", "seed", "sample", "prompt"])
def test_another_model_task_seed_sample_or_prompt_is_asked_anew(tmp_path: Path, change: str) -> None:
    def ask(identity="m", task="t", seed=0, sample=0, prompt="p"):
        backend = CountingBackend(identity=identity)
        request = Generation(prompt, "item", sample)
        session_of(tmp_path, backend).generate(task_of(task), [request], Sampling(4, seed=seed))
        return len(backend.asked)

    assert ask() == 1
    assert ask() == 0
    changed = {"model": {"identity": "n"}, "task": {"task": "u"}, "seed": {"seed": 1}}
    changed |= {"sample": {"sample": 1}, "prompt": {"prompt": "q"}}
    assert ask(**changed[change]) == 1


def test_an_answer_gets_at_most_half_of_a_small_models_window(tmp_path: Path) -> None:
    asked = []

    class Small(CountingBackend):
        def generate(self, requests, sampling, done=None, known=()):
            asked.append(sampling.max_new_tokens)
            return super().generate(requests, sampling, done, known)

    session = session_of(tmp_path, Small(facts={"context_tokens": 100}))
    for wanted in (512, 40):
        session.generate(task_of(), [Generation("p", f"item {wanted}")], Sampling(wanted))
    assert asked == [50, 40]


def test_equal_programs_are_judged_once_and_a_known_outcome_never_again(tmp_path: Path) -> None:
    judged: list[int] = []

    def judge(positions, done):
        for position in positions:
            judged.append(position)
            done(position, Outcome(*("passed", "", "", 0.1, 0.1, 3)))

    session = session_of(tmp_path, CountingBackend())
    trials = ["a", "b", "a", "c", "b"]
    assert len(session.outcomes(task_of(), judge, trials)) == 5
    assert judged == [0, 1, 3]
    session_of(tmp_path, CountingBackend()).outcomes(task_of(), judge, trials)
    assert judged == [0, 1, 3]


def test_a_part_of_the_items_is_the_same_part_in_any_order(tmp_path: Path) -> None:
    items = [Item(str(number), str(number), "", {}) for number in range(50)]
    session = session_of(tmp_path, CountingBackend(), max_items=7)
    some = session.chosen(items)
    assert len(some) == 7
    assert session.chosen(items[::-1]) == some
    assert {item.id for item in session_of(tmp_path, CountingBackend(), max_items=6).chosen(items)} <= {
        item.id for item in some
    }
    with pytest.raises(ValueError, match="no items"):
        session.chosen([])
