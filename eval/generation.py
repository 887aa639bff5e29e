"""Answers of a model to code problems: the prompt goes in, the program that will be judged comes out.

White space at the end of a prompt is left to the model. Byte-level tokenizers join a line end with the indentation
after it, and a prompt that ends between the two asks for a token that the model never saw there (the fault that once
gave Mistral-7B 0.012 instead of 0.274 on HumanEval). An answer is cut at the task's first stop string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .tasks import CodeTask, Problem

if TYPE_CHECKING:
    from .backends import Backend


def answers(
    backend: Backend,
    problems: Sequence[Problem],
    task: CodeTask,
    max_new_tokens: int,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Greedy continuation of each problem's prompt, without the prompt."""
    return backend.generate([_prompt(problem) for problem in problems], max_new_tokens, task.stop, progress)


def program(problem: Problem, answer: str) -> str:
    """The prompt with its answer: what is executed."""
    return _prompt(problem) + answer


def _prompt(problem: Problem) -> str:
    return problem.prompt.rstrip()
