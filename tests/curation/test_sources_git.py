"""The git source: a revision's files from the object store, whatever the repository would like to start."""

import json
import os
import subprocess
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import SourceConfig
from codesieve.curation.sources import git as git_source
from codesieve.curation.sources.files import FilesReader
from codesieve.curation.sources.listing import Listing, units
from codesieve.curation.sources.sources import list_sources
from codesieve.strict import ConfigError

ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
}  # fmt: skip


def git(folder: Path, *arguments: str, date: str = "2024-01-02T03:04:05+00:00") -> str:
    environment = {**ENVIRONMENT, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    (root / "src" / "one.py").write_text("x = 1\n")
    (root / "two\nlines.py").write_text("y = 2\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    git(root, "tag", "v1")
    (root / "src" / "one.py").write_text("x = 3\n")
    (root / "binary.bin").write_bytes(b"\0\1")
    (root / "big.dat").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    (root / "away.py").symlink_to("/etc/passwd")
    git(root, "add", ".")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{git(root, 'rev-parse', 'HEAD')},dependency")
    git(root, "commit", "-q", "-m", "second", date="2024-05-06T07:08:09+02:00")
    (root / "src" / "one.py").write_text("not committed\n")
    return root


def listing(path: Path, **more: object) -> Listing:
    return list_sources([SourceConfig(name="here", type="git", path=str(path), **more)])


def read(found: Listing, tmp_path: Path) -> tuple[list[dict], dict[str, str]]:
    reader = FilesReader(8_000_000, tmp_path / "skipped")
    frames = [
        batch
        for index, unit in enumerate(units(found.entries, 16_000_000))
        for batch in reader.read({**json.loads(json.dumps(unit)), "index": index})
    ]
    skips = pl.read_parquet(tmp_path / "skipped" / "*.parquet")
    reasons = {skip.path: skip.reason for skip in found.skips} | dict(zip(skips["path"], skips["reason"], strict=True))
    return pl.concat(frames).to_dicts(), reasons


def test_a_commit_is_read_with_its_facts_and_the_rest_is_skipped_by_name(repository: Path, tmp_path: Path) -> None:
    git(repository, "remote", "add", "origin", "https://user:secret@example.org/team/project.git?token=1")
    documents, reasons = read(listing(repository), tmp_path)
    commit = git(repository, "rev-parse", "HEAD")
    rows = {row["path"]: row for row in documents}
    assert rows.keys() == {"src/one.py", "two\nlines.py"}
    assert rows["src/one.py"]["text"] == "x = 3\n"
    assert {row["revision"] for row in documents} == {commit}
    assert {row["repository"] for row in documents} == {"https://example.org/team/project.git"}
    assert json.loads(rows["src/one.py"]["extra"]) == {"changed": "2024-05-06T07:08:09+02:00"}
    assert json.loads(rows["two\nlines.py"]["extra"]) == {"changed": "2024-01-02T03:04:05+00:00"}
    assert reasons == {
        "away.py": "link", "dependency": "submodule", "binary.bin": "binary", "big.dat": "lfs_pointer",
    }  # fmt: skip


def test_a_tag_a_bare_repository_and_the_git_folder_itself_are_read(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    for path in (repository, repository / ".git", bare):
        documents, _ = read(listing(path, revision="v1"), tmp_path)
        assert {row["path"]: row["text"] for row in documents} == {"src/one.py": "x = 1\n", "two\nlines.py": "y = 2\n"}
        assert {row["repository"] for row in documents} == {"project"}  # a path of this machine gives its last part


def test_without_history_there_are_no_dates_and_the_same_documents(repository: Path, tmp_path: Path) -> None:
    documents, _ = read(listing(repository, history=False), tmp_path)
    assert {row["extra"] for row in documents} == {"{}"}
    dated, _ = read(listing(repository), tmp_path)
    assert [row["id"] for row in documents] == [row["id"] for row in dated]


@pytest.mark.parametrize("revision", ["nowhere", "--help", "--output=stolen", "HEAD:src", "v1..main", "a\0b"])
def test_what_is_no_commit_is_an_error_and_never_an_option(repository: Path, revision: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        listing(repository, revision=revision)
    assert not list(repository.parent.glob("**/stolen"))


def test_a_folder_without_a_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a git repository"):
        listing(tmp_path)


def test_a_missing_git_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="git: no such program"):
        listing(repository)


def test_nothing_that_a_repository_configures_is_started(repository: Path, tmp_path: Path) -> None:
    """Each setting would leave a file behind if git ran it."""
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\nexit 1\n")
    trap.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "-q", "-m", "attributes")
    head, _, message = git(repository, "cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----"
    (tmp_path / "signed").write_text(f"{head}\n{signature}\n\n{message}\n")
    git(
        repository,
        "reset",
        "-q",
        "--soft",
        git(repository, "hash-object", "-t", "commit", "-w", str(tmp_path / "signed")),
    )
    for key in (
        "core.fsmonitor", "core.pager", "pager.log", "diff.external", "diff.evil.textconv", "diff.evil.command",
        "filter.evil.smudge", "filter.evil.process", "gpg.program", "core.sshCommand", "core.askPass",
    ):  # fmt: skip
        git(repository, "config", key, str(trap))
    git(repository, "config", "log.showSignature", "true")
    git(repository, "config", "alias.ls-tree", f"!{trap}")
    hooks = repository / ".git" / "hooks"
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (hooks / hook).write_text(trap.read_text())
        (hooks / hook).chmod(0o755)
    documents, _ = read(listing(repository), tmp_path)
    assert len(documents) == 3
    assert not (tmp_path / "sprung").exists()


def test_a_blob_that_a_partial_clone_lacks_is_a_skip_and_is_not_fetched(repository: Path, tmp_path: Path) -> None:
    blob = git(repository, "rev-parse", "HEAD:src/one.py")
    found = listing(repository)
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\nexit 1\n")
    trap.chmod(0o755)
    for key, value in {
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true",
        "remote.origin.url": str(tmp_path), "remote.origin.uploadpack": str(trap),
    }.items():  # fmt: skip
        git(repository, "config", key, value)
    _, reasons = read(found, tmp_path)
    assert reasons["src/one.py"] == "missing_object"
    assert not (tmp_path / "sprung").exists()


def test_the_callers_git_variables_change_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    documents, _ = read(listing(repository), tmp_path)
    assert len(documents) == 2


def test_a_date_is_only_what_git_says_and_not_what_a_file_is_called(repository: Path) -> None:
    (repository / "\x01forged").write_text("z = 1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "forged", date="2024-09-09T09:09:09+00:00")
    found = {entry.path: entry.extra for entry in listing(repository).entries}
    assert json.loads(found["\x01forged"]) == {"changed": "2024-09-09T09:09:09+00:00"}
    assert all(value.startswith('{"changed": "2024-') for value in found.values())


def test_marks_name_the_content_and_no_path_of_this_machine(repository: Path) -> None:
    marks = [unit["marks"] for unit in units(listing(repository).entries, 1_000)]
    assert str(repository.parent) not in json.dumps(marks)
    assert git(repository, "rev-parse", "HEAD:src/one.py") in json.dumps(marks)


def test_a_linked_working_tree_is_a_repository(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", str(tmp_path / "linked"), "v1")
    assert git_source.repository_at(tmp_path / "linked") == tmp_path / "linked" / ".git"
    documents, _ = read(listing(tmp_path / "linked"), tmp_path)
    assert {row["text"] for row in documents} == {"x = 1\n", "y = 2\n"}
