"""The reference pages are what the tables say."""

import re
import subprocess
import sys
from pathlib import Path

import codesieve
import pytest
import yaml
from codesieve.strict import parse, read_yaml

ROOT = Path(codesieve.__file__).parent


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("tutorials/*.md")), ids=lambda page: page.stem)
def test_the_yaml_of_a_tutorial_is_yaml(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        assert yaml.safe_load(block), block


def test_the_recipes_of_training_are_valid_but_for_corpus_and_out() -> None:
    from codesieve.config import TrainJobConfig

    recipes = sorted((ROOT / "configs" / "train").glob("*.yaml"))
    assert recipes
    for path in recipes:
        job = {**read_yaml(path), "corpus": "here", "out": "there"}
        assert parse(TrainJobConfig, job, where=str(path)).train.resolved_stages()
