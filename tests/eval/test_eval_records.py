"""The append-only store: what a killed process leaves, and what another run may find."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from codesieve.eval.records import ASIDE_FILE, RECORDS_FILE, Records
from codesieve.strict import ConfigError
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


def test_of_a_damaged_file_only_the_damaged_lines_are_lost_and_kept_aside(tmp_path: Path) -> None:
    good = [json.dumps({"key": key, "value": {"x": key}}) for key in "abc"]
    bad = [b"rubbish", b'{"key": "d"}', b"[1]", b'{"key": "b", "value\xff']
    lines = [good[0].encode(), bad[0], bad[1], good[1].encode(), bad[2], bad[3], good[2].encode()]
    (tmp_path / RECORDS_FILE).write_bytes(b"\n".join(lines) + b"\ntorn")
    with Records(tmp_path) as records:
        assert records.damaged == (2, 3, 5, 6)
        assert [records.get(key) for key in "abcd"] == [{"x": "a"}, {"x": "b"}, {"x": "c"}, None]
        records.put(["d"], [{"x": 4}])
    assert (tmp_path / ASIDE_FILE).read_bytes() == b"".join(line + b"\n" for line in bad)
    with Records(tmp_path) as records:
        assert records.damaged == ()
        assert (len(records), records.get("d")) == (4, {"x": 4})
    assert sorted(path.name for path in tmp_path.iterdir()) == [ASIDE_FILE, RECORDS_FILE]


HOLDER = """
import sys, time
from pathlib import Path
from codesieve.eval.records import Records
with Records(Path(sys.argv[1])) as records:
    records.put(["theirs"], [{"x": 1}])
    print("open", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_record_in_one_folder(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match=r"records\.jsonl: another process is recording there; .*another --out"):
            Records(tmp_path)
    finally:
        other.kill()
        other.wait()
    with Records(tmp_path) as records:  # a killed process holds nothing
        assert records.get("theirs") == {"x": 1}


def test_a_child_that_outlives_a_killed_run_does_not_keep_its_records(tmp_path: Path) -> None:
    forking = HOLDER.replace("    print", "    import os; os.fork() or (time.sleep(4), os._exit(0))\n    print")
    other = subprocess.Popen([sys.executable, "-c", forking, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "open\n"
    other.kill()
    other.wait()
    with Records(tmp_path) as records:
        assert records.get("theirs") == {"x": 1}


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
