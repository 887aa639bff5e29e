"""The append-only store: what a killed process leaves, and what another run may find."""

import json
from pathlib import Path

import pytest
from codesieve.eval.records import RECORDS_FILE, Records
from hypothesis import given, settings
from hypothesis import strategies as st

VALUES = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.fixed_dictionaries({"nats": st.floats(allow_nan=False), "text": st.text(max_size=20)}),
    max_size=8,
)


@settings(deadline=None, max_examples=40)
@given(values=VALUES)
def test_what_is_put_is_there_when_the_store_is_opened_again(tmp_path_factory: pytest.TempPathFactory, values) -> None:
    folder = tmp_path_factory.mktemp("records")
    with Records(folder) as records:
        records.put(list(values), list(values.values()))
    with Records(folder) as records:
        assert {key: records.get(key) for key in values} == values
        assert len(records) == len(values)


def test_a_torn_last_line_is_dropped_and_the_rest_stays(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        records.put(["a", "b"], [{"x": 1}, {"x": 2}])
    path = tmp_path / RECORDS_FILE
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]), len(whole)):
        path.write_bytes(whole[:cut])
        with Records(tmp_path) as records:
            assert records.get("a") == {"x": 1}
            assert records.get("b") is None
            records.put(["b"], [{"x": 2}])
        assert path.read_bytes() == whole


def test_a_known_key_keeps_its_value(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        records.put(["a"], [{"x": 1}])
        records.put(["a"], [{"x": 2}])
        assert records.get("a") == {"x": 1}
    assert len((tmp_path / RECORDS_FILE).read_text().splitlines()) == 1


def test_a_damaged_file_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / RECORDS_FILE).write_text(json.dumps({"key": "a", "value": {}}) + "\nrubbish\n")
    with pytest.raises(ValueError, match=r"records\.jsonl: line 2 is no record"):
        Records(tmp_path)


def test_a_full_disk_is_told_with_the_file_and_costs_no_earlier_record(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        records.put(["a"], [{"x": 1}])
        own, records._file = records._file, open("/dev/full", "ab", buffering=0)  # noqa: PTH123, SIM115
        with pytest.raises(OSError, match=r"No space left.*records\.jsonl"):
            records.put(["b"], [{"x": 2}])
        records._file.close()
        records._file = own
    with Records(tmp_path) as records:
        assert (records.get("a"), records.get("b")) == ({"x": 1}, None)
