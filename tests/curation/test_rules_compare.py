"""Rule sets side by side on one run: layers beside the run's own, and numbers that add up to the row."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from codesieve.cli import app
from codesieve.curation.corpus import scan
from codesieve.curation.rules import RuleSet, RulesStep
from codesieve.curation.rules.compare import compare_rules, comparison_path
from codesieve.curation.rules.layers import apply_rules, layer_of, load_rules_for
from codesieve.curation.shards import footer, shard_paths, write_shard
from codesieve.files import read_json, write_json
from codesieve.strict import ConfigError
from typer.testing import CliRunner

SHARDS, ROWS = 3, 40


def rules(name: str, **predicates: str) -> RuleSet:
    made = [
        {"name": key, "version": 1, "languages": "all", "fires": fires, "why": "w"} for key, fires in predicates.items()
    ]
    return RuleSet.model_validate({"name": name, "description": "d", "rules": made})


LONG = rules("long-ones", long="line_count > 60", longer="line_count > 80", never="line_count > 5000")
C_ONLY = rules("c_only", other="language <> 'c'")
OWN = rules("own", short="line_count < 10")


def rows(shard: int) -> list[dict[str, Any]]:
    numbers = [shard * ROWS + row for row in range(ROWS)]
    return [
        {
            "id": f"{number * 7919 % 1009:032x}",
            "path": f"src/{number}.txt",
            "language": ("c", "go", "python")[number % 3],
            "size_bytes": 10 + number,
            "line_count": number,
        }
        for number in numbers
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three shards with a few columns, and its own layer of reasons."""
    folder = tmp_path / "run"
    schema = {
        "id": pl.String,
        "path": pl.String,
        "language": pl.String,
        "size_bytes": pl.Int64,
        "line_count": pl.UInt32,
    }
    for shard in range(SHARDS):
        frame = pl.DataFrame(rows(shard), schema=schema)
        write_shard(folder / "annotated" / f"{shard:05d}.parquet", [frame], {"fingerprint": "a"})
        own = RulesStep(OWN)(frame).select("id", "reasons", "reason_count")
        write_shard(folder / "layers" / "rules" / f"{shard:05d}.parquet", [own], {"fingerprint": "r"})
    write_json(folder / "plan" / "annotated" / "plan.json", {"fingerprint": "a", "made_from": {}})
    write_json(folder / "plan" / "rules" / "plan.json", {"fingerprint": "r", "made_from": {"rule_set": OWN.hash}})
    return folder


def test_a_set_gets_a_layer_and_columns_of_its_own(run: Path) -> None:
    layer = apply_rules(run, LONG)
    assert (layer.name, layer.reasons, layer.count) == (
        "rules-long-ones",
        "reasons_long_ones",
        "reason_count_long_ones",
    )
    frame = scan(run).collect()
    assert frame["reasons_long_ones"].to_list() == [
        [name for name, limit in (("long", 60), ("longer", 80)) if lines > limit] for lines in frame["line_count"]
    ]
    assert frame["reason_count_long_ones"].to_list() == frame["reasons_long_ones"].list.len().to_list()
    assert frame["reasons"].list.contains("short").sum() == 10


def test_every_shard_says_which_rules_it_was_made_with(run: Path) -> None:
    apply_rules(run, LONG)
    shards = shard_paths(run / "layers" / "rules-long-ones")
    assert len(shards) == SHARDS
    assert {footer(path)["rule_set_hash"] for path in shards} == {LONG.hash}
    assert {footer(path)["rule_set"] for path in shards} == {"long-ones"}


def test_a_second_start_makes_only_what_is_missing_and_other_rules_make_all_anew(run: Path) -> None:
    apply_rules(run, LONG)
    first, *others = shard_paths(run / "layers" / "rules-long-ones")
    before = {path: path.stat().st_mtime_ns for path in others}
    wanted = first.read_bytes()
    first.unlink()
    apply_rules(run, LONG)
    assert first.read_bytes() == wanted
    assert {path: path.stat().st_mtime_ns for path in others} == before
    changed = rules("long-ones", long="line_count > 61")
    apply_rules(run, changed)
    assert {footer(path)["rule_set_hash"] for path in (first, *others)} == {changed.hash}
    assert scan(run).select(pl.col("reason_count_long_ones").sum()).collect().item() == SHARDS * ROWS - 62


def test_the_run_s_own_set_is_not_made_twice(run: Path) -> None:
    assert layer_of(run, OWN).name == "rules"
    assert apply_rules(run, OWN).reasons == "reasons"
    assert not (run / "layers" / "rules-own").exists()
    assert layer_of(run, rules("own", short="line_count < 11")).name == "rules-own"


def test_rules_that_need_a_signal_that_the_run_lacks_are_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump(rules("more", words="word_count > 3").model_dump(mode="json", by_alias=True)))
    with pytest.raises(ConfigError, match='unknown column "word_count"'):
        load_rules_for(run, str(path))
    with pytest.raises(ConfigError, match="no annotated shards"):
        load_rules_for(tmp_path / "nothing", str(path))


def test_numbers_add_up_to_the_row(run: Path) -> None:
    found = compare_rules(run, LONG, C_ONLY)
    frame = scan(run).collect()
    total, size = frame.height, int(frame["size_bytes"].sum())
    assert (found["documents"], found["bytes"]) == (total, size)
    for each in found["sets"]:
        assert each["documents_kept"] + each["documents_removed"] == total
        assert each["bytes_kept"] + each["bytes_removed"] == size
    for unit, expected in (("documents", total), ("bytes", size)):
        cells = found["agreement"][unit]
        assert sum(cells.values()) == expected
        a, b = (each[f"{unit}_removed"] for each in found["sets"])
        assert (cells["only_a_removes"] + cells["both_remove"], cells["only_b_removes"] + cells["both_remove"]) == (
            a,
            b,
        )
        assert sum(row[unit] for row in found["languages"]) == expected
        assert sum(row[f"{unit}_removed_a"] for row in found["languages"]) == a
        assert sum(row[f"{unit}_removed_b"] for row in found["languages"]) == b
    assert json.dumps(read_json(comparison_path(run, "long-ones", "c_only"))) == json.dumps(read_json_like(found))


def read_json_like(found: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(found, sort_keys=True))


def test_each_rule_is_counted_alone_and_jointly(run: Path) -> None:
    found = compare_rules(run, LONG, C_ONLY)
    frame = scan(run).collect()
    lines, other = frame["line_count"], frame["language"] != "c"
    by_name = {row["rule"]: row for row in found["rules"]}
    assert list(by_name) == ["long", "longer", "never", "other"]
    assert by_name["long"]["documents"] == (lines > 60).sum()
    assert by_name["long"]["documents_alone"] == ((lines > 60) & (lines <= 80)).sum()
    assert by_name["longer"]["documents_alone"] == 0
    assert by_name["long"]["documents_also_other_set"] == ((lines > 60) & other).sum()
    assert by_name["long"]["bytes_alone"] == frame.filter((lines > 60) & (lines <= 80))["size_bytes"].sum()
    assert by_name["never"] == {"set": "long-ones", "rule": "never", **dict.fromkeys(list(by_name["never"])[2:], 0)}


def test_kappa_and_jaccard_are_those_of_the_table(run: Path) -> None:
    agreement = compare_rules(run, LONG, C_ONLY)["agreement"]
    keep, a, b, both = (
        agreement["documents"][k] for k in ("both_keep", "only_a_removes", "only_b_removes", "both_remove")
    )
    n = keep + a + b + both
    observed = (keep + both) / n
    chance = ((a + both) * (b + both) + (keep + b) * (keep + a)) / n**2
    assert agreement["kappa_documents"] == pytest.approx((observed - chance) / (1 - chance))
    assert agreement["jaccard_documents"] == pytest.approx(both / (a + b + both))
    same = compare_rules(run, LONG, rules("twin", long="line_count > 60"))["agreement"]
    assert (same["kappa_documents"], same["jaccard_bytes"]) == (1, 1)
    nothing = compare_rules(run, rules("p", x="line_count > 999"), rules("q", x="line_count > 999"))["agreement"]
    assert (nothing["kappa_documents"], nothing["jaccard_documents"]) == (None, None)


def test_the_sample_of_disagreements_is_the_same_each_time_and_has_both_sides(run: Path) -> None:
    sample = compare_rules(run, LONG, C_ONLY, documents=6)["disagreements"]
    assert sample == compare_rules(run, LONG, C_ONLY, documents=6)["disagreements"]
    assert [row["removed_by"] for row in sample] == ["a"] * 3 + ["b"] * 3
    frame = scan(run).collect()
    apart = frame.filter((pl.col("reason_count_long_ones") > 0) & (pl.col("reason_count_c_only") == 0))
    assert [row["id"] for row in sample[:3]] == sorted(apart["id"])[:3]
    for row in sample:
        assert bool(row["reasons_a"]) is (row["removed_by"] == "a")
        assert bool(row["reasons_b"]) is (row["removed_by"] == "b")
        assert row["path"].startswith("src/")


def test_a_side_with_few_disagreements_leaves_its_places_to_the_other(run: Path) -> None:
    few = compare_rules(run, LONG, rules("nearly", long="line_count > 62"), documents=10)["disagreements"]
    assert [row["removed_by"] for row in few] == ["a", "a"]
    many = compare_rules(run, rules("one", x="line_count = 7"), C_ONLY, documents=10)["disagreements"]
    assert len(many) == 10
    assert compare_rules(run, LONG, C_ONLY, documents=0)["disagreements"] == []


def test_two_sets_of_one_name_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match='both rule sets are named "long-ones"'):
        compare_rules(run, LONG, LONG)


def test_both_sides_are_the_same_numbers_the_other_way_round(run: Path) -> None:
    one, other = compare_rules(run, LONG, C_ONLY), compare_rules(run, C_ONLY, LONG)
    assert one["agreement"]["documents"]["only_a_removes"] == other["agreement"]["documents"]["only_b_removes"]
    assert one["agreement"]["kappa_bytes"] == pytest.approx(other["agreement"]["kappa_bytes"])
    assert [row["rule"] for row in one["rules"]] == ["long", "longer", "never", "other"]
    assert [row["rule"] for row in other["rules"]] == ["other", "long", "longer", "never"]


# --- the commands


def write_set(folder: Path, made: RuleSet) -> str:
    path = folder / f"{made.name}.yaml"
    data = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    path.write_text(yaml.safe_dump({**data, "rules": [{"languages": "all", **rule} for rule in data["rules"]]}))
    return str(path)


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["rules", *arguments])


def test_two_files_are_compared_from_the_command_line(run: Path, tmp_path: Path) -> None:
    files = [write_set(tmp_path, LONG), write_set(tmp_path, C_ONLY)]
    result = command("compare", *files, "--run", str(run), "--documents", "4", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["documents"] == SHARDS * ROWS
    assert len(found["disagreements"]) == 4
    assert Path(found["written"]) == comparison_path(run, "long-ones", "c_only")
    shown = command("compare", *files, "--run", str(run))
    assert "only long-ones removes" in shown.stdout
    assert "fired on nothing: long-ones never" in shown.stdout


def test_a_set_is_applied_from_the_command_line(run: Path, tmp_path: Path) -> None:
    result = command("apply", write_set(tmp_path, LONG), str(run))
    assert result.exit_code == 0, result.output
    assert "reasons_long_ones" in result.stdout
    assert "reasons_long_ones" in scan(run).collect_schema().names()


def test_check_prints_every_problem_and_exits_with_2(tmp_path: Path) -> None:
    bad = write_set(tmp_path, rules("bad", one="line_count", two="gate = 'x'", three="digit_fraction > 2"))
    result = command("check", bad, "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert [row["rule"] for row in found] == ["one", "two", "three"]
    assert {"message", "file", "rule", "problem", "advice", "column", "value"} == set(found[0])
    assert (found[1]["column"], found[1]["value"]) == ("gate", "x")
    assert "3 problems" in result.stderr
    good = command("check", write_set(tmp_path, rules("good", one="line_count > 3")))
    assert (good.exit_code, "1 rules, no problem" in good.stdout) == (0, True)


def test_list_and_show_tell_what_there_is() -> None:
    listed = {row["name"]: row for row in json.loads(command("list", "--json").stdout)}
    assert {"codesieve", "refinecode", "redpajama", "stack-v2", "starcoder"} <= set(listed)
    assert all(len(row["hash"]) == 32 and row["rules"] and row["description"] for row in listed.values())
    one = json.loads(command("show", "refinecode", "--explain", "placeholders", "--json").stdout)
    assert "one TODO" in one["corrected"]
    assert len(json.loads(command("show", "refinecode", "--json").stdout)) == listed["refinecode"]["rules"]
