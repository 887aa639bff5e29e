"""Files of samples: one reader for all who take them, and the line that is none."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from codesieve.eval.backends.replay import ReplayBackend
from codesieve.eval.samples import Sample, read_samples
from codesieve.strict import ConfigError


def written(folder: Path, *lines: Any, name: str = "samples.jsonl", mark: bytes = b"") -> Path:
    path = folder / name
    data = mark + "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def shown(samples: list[Sample]) -> list[tuple[str, str, str]]:
    return [(each.item, each.text, each.form) for each in samples]


def test_every_form_is_read_and_says_what_the_text_is(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"task_id": "a", "completion": "1"},
        {"item": 7, "solution": "x = 1", "other": True},
        {"task_id": "a", "samples": ["2", "3"]},
    )
    expected = [("a", "1", "completion"), ("7", "x = 1", "program"), ("a", "2", "completion"), ("a", "3", "completion")]
    assert shown(read_samples(path)) == expected
    assert [each.text for each in ReplayBackend(path).samples["a"]] == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["samples.jsonl", "samples.jsonl.gz"])
def test_compression_a_byte_order_mark_and_odd_line_ends_inside_texts_change_nothing(tmp_path: Path, name: str) -> None:
    text = "s = '\u2028\x85'\n"
    path = written(tmp_path, {"task_id": "a", "completion": text}, name=name, mark=b"\xef\xbb\xbf")
    assert shown(read_samples(path)) == [("a", text, "completion")]
    assert ReplayBackend(path).samples["a"][0].text == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"completion": ""}, "line 1: expected an object"),
        ({"task_id": True, "completion": ""}, "line 1: expected an object"),
        ({"task_id": "a"}, 'no "completion"'),
        ({"task_id": "a", "completion": 1}, r"completion must be text \(got int\)"),
        ({"task_id": "a", "samples": ["x", None]}, "samples must be text"),
        ({"task_id": "a", "samples": []}, "no samples"),
        ([1], "expected an object"),
    ],
)
def test_a_bad_sample_is_named(line: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, line)
    for read in (read_samples, ReplayBackend):
        with pytest.raises(ConfigError, match=rf"samples\.jsonl.*{message}"):
            read(path)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no samples"),
        (b"\n\n", "no samples"),
        (b'{"task_id": \n', "line 1: not valid JSON"),
        (b'{"task_id": "a", "completion": "\xe9"}\n', "can't decode byte 0xe9"),
        (b"\x1f\x8b\x08\x00", "samples.jsonl"),
    ],
)
def test_a_file_that_is_none_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_samples(tmp_path / "samples.jsonl")
    with pytest.raises(ConfigError, match="No such file"):
        read_samples(tmp_path / "other.jsonl")
