"""Answers of a model to code problems: the prompt goes in, the program that will be judged comes out.

White space at the end of a prompt is left to the model. Byte-level tokenizers join a line end with the indentation
after it, and a prompt that ends between the two asks for a token that the model never saw there (the fault that once
gave Mistral-7B 0.012 instead of 0.274 on HumanEval). An answer is cut at the task's first stop string, and what belongs
to the function that the prompt began is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .code import extract_completion
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
    """What is executed: the prompt with the part of the answer that belongs to its function."""
    return _prompt(problem) + extract_completion(answer)


def _prompt(problem: Problem) -> str:
    return problem.prompt.rstrip()
