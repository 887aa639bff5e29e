"""Code problems judged by execution: a problem's tests and a whole program in, an outcome out.

Every solution runs in a contained process of its own that holds no test; what its function returns is compared here
(see `sandbox/judge.py`). Before anything is scored, the references have to pass: a task that refuses its own answers
measures something else. Identical solutions of one problem are run once. One run costs about 40 ms and what the
solution itself takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..sandbox import judge as sandbox
from ..sandbox.limits import DEFAULT_LIMITS, Limits
from ..sandbox.run import Outcome
from .tasks import Problem


class ReferencesFail(RuntimeError):
    """Too few references pass: the tests, the sandbox or this interpreter are not what the task was made for."""


def judge(problem: Problem, solution_source: str, limits: Limits = DEFAULT_LIMITS, required_level: int = 1) -> Outcome:
    """The outcome of one solution: the whole program, prompt included.

    An answer without code is `empty` and not run; its level is 0.

    Raises:
        ValueError: if a test of the problem is not in the form of `sandbox/values.py`.
        SandboxError: if the sandbox failed; never because of what the solution does.
    """
    return sandbox.judge(_trial(problem, solution_source), limits, required_level)


def judge_all(
    problems: Sequence[Problem],
    solutions: Sequence[str],
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    required_level: int = 1,
    rerun_timeouts: bool = True,
) -> list[Outcome]:
    """Outcomes of `solutions[i]` for `problems[i]`, in that order whatever the number of workers.

    Args:
        workers: contained processes at a time.
        progress: called with the fraction done.
        rerun_timeouts: a timeout is judged again when nothing else runs, and the second outcome counts.

    Raises:
        ValueError, SandboxError: as `judge`.
    """
    if len(problems) != len(solutions):
        raise ValueError(f"{len(problems)} problems, but {len(solutions)} solutions")
    pairs = [(problem.name, source) for problem, source in zip(problems, solutions, strict=True)]
    trials = {pair: _trial(problem, pair[1]) for pair, problem in zip(pairs, problems, strict=True)}
    outcomes = sandbox.judge_all(list(trials.values()), limits, workers, required_level, rerun_timeouts, progress)
    by_pair = dict(zip(trials, outcomes, strict=True))
    return [by_pair[pair] for pair in pairs]


def check_references(
    problems: Sequence[Problem],
    min_pass_rate: float = 1.0,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    required_level: int = 1,
) -> float:
    """The share of references (prompt + reference) that pass.

    Raises:
        ReferencesFail: if it is below `min_pass_rate`; the message names every one that fails, and how.
    """
    sources = [problem.prompt + problem.reference for problem in problems]
    outcomes = judge_all(problems, sources, workers, progress, limits, required_level)
    named = {problem.name: outcome for problem, outcome in zip(problems, outcomes, strict=True)}
    failed = [f"{name}: {found.status}: {found.detail}" for name, found in named.items() if found.status != "passed"]
    rate = 1.0 - len(failed) / len(problems)
    if rate < min_pass_rate:
        shown = "\n  ".join(failed)
        raise ReferencesFail(f"{rate:.1%} of the references pass, {min_pass_rate:.1%} are required:\n  {shown}")
    return rate


def extract_completion(completion: str) -> str:
    """The part of a base model's continuation that belongs to the function that the prompt began.

    It ends before the first line with code at column 0: the function is over there. Blank lines and comments do not
    end it, but are dropped from the end. What stands before the first line end continues the prompt's last line, and
    always belongs. So helpers that come after the function are lost, as they are with HumanEval's stop strings.
    """
    first, *rest = completion.split("\n")
    kept = [first]
    for line in rest:
        if line.strip() and not line[0].isspace() and not line.startswith("#"):
            break
        kept.append(line)
    while len(kept) > 1 and (not kept[-1].strip() or kept[-1].startswith("#")):
        kept.pop()
    return "\n".join(kept)


def _trial(problem: Problem, source: str) -> sandbox.Trial:
    tests = sandbox.parse_tests(problem.tests, f'problem "{problem.name}"')
    prompt = problem.prompt.rstrip()
    is_empty = source.startswith(prompt) and sandbox.is_empty(source[len(prompt) :])
    return sandbox.Trial("" if is_empty else source, problem.entry_point, tests)
