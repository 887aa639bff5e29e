"""Every language that is installed here runs a right, a wrong, an endless and an uncompilable program."""

import pytest
from codesieve.sandbox import languages
from codesieve.sandbox.containment import best, plan_of_level, plans
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.judge import Exchange, ProgramTests, StdioTests, Trial, judge
from codesieve.sandbox.languages import describe, toolchain
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.process import Plan
from codesieve.strict import ConfigError

ADDS = StdioTests((Exchange("1 2\n", "3\n"),))
LIMITS = Limits(cpu_seconds=1)

# (adds two numbers, an endless loop, not in the language)
PROGRAMS = {
    "python": ("a, b = map(int, input().split())\nprint(a + b)\n", "while True: pass\n", "def (\n"),
    "javascript": (
        "const [a, b] = require('fs').readFileSync(0, 'utf8').split(/\\s+/).map(Number);\nconsole.log(a + b);\n",
        "while (true) {}\n",
        "function ( {\n",
    ),
    "shell": ("read a b; echo $((a + b))\n", "while :; do :; done\n", "if then fi ((\n"),
    "cpp": (
        "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }\n",
        "int main() { volatile int x = 0; while (true) x++; }\n",
        "int main( {\n",
    ),
    "java": (
        "import java.util.Scanner;\npublic class Sum { public static void main(String[] arguments) {\n"
        "  Scanner in = new Scanner(System.in); System.out.println(in.nextInt() + in.nextInt()); } }\n",
        "class Helper {}\nclass Endless { public static void main(String[] a) { while (true) {} } }\n",
        "class Sum { int\n",
    ),
    "go": (
        'package main\nimport "fmt"\nfunc main() { var a, b int; fmt.Scan(&a, &b); fmt.Println(a + b) }\n',
        "package main\nfunc main() { for {} }\n",
        "package main\nfunc main( {\n",
    ),
    "rust": (
        "use std::io::*;\nfn main() { let mut s = String::new(); stdin().read_to_string(&mut s).unwrap();\n"
        "  let v: Vec<i64> = s.split_whitespace().map(|x| x.parse().unwrap()).collect(); println!(\"{}\", v[0] + v[1]); }\n",
        "fn main() { let mut x: u64 = 0; loop { x = std::hint::black_box(x.wrapping_add(1)); } }\n",
        "fn main( {\n",
    ),
}  # fmt: skip


def need(language):
    try:
        toolchain(language)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_a_program_is_compiled_run_and_compared(language):
    need(language)
    adds, endless, broken = PROGRAMS[language]
    subtracts = adds.replace("a + b", "a - b").replace("v[0] + v[1]", "v[0] - v[1]").replace("Int() + in", "Int() - in")
    right = judge(Trial(adds, ADDS, language))
    assert (right.status, right.judge) == ("passed", "apart"), right
    assert 0 < right.cpu_seconds < 4
    wrong = judge(Trial(subtracts, ADDS, language))
    assert (wrong.status, wrong.detail) == ("wrong", r"test 0: expected '3\n', printed '-1\n'"), wrong
    assert judge(Trial(endless, ADDS, language, LIMITS)).status == "timeout"
    assert judge(Trial(broken, ADDS, language)).status == "syntax_error"


# (function, tests that it passes, tests that it fails); MultiPL-E's form.
WITH_TESTS = {
    "javascript": (
        "function add(a, b) {\n  return a + b;\n}\n",
        "const assert = require('node:assert');\nassert.deepEqual(add(1, 2), {});\n",
        ("{}", "3"),
        "process.exit(0);\n",
    ),
    "shell": ("add() {\n  echo $(($1 + $2))\n}\n", "set -e\n[[ $(add 1 2) = {} ]]\n", ("{}", "3"), "exit 0\n"),
    "cpp": (
        "#include <cassert>\nint add(int a, int b) { return a + b; }\n",
        "int main() { assert(add(1, 2) == {}); }\n",
        ("{}", "3"),
        None,
    ),
    "java": (
        "class Problem { static int add(int a, int b) { return a + b; }\n",
        "public static void main(String[] args) { assert add(1, 2) == {}; } }\n",
        ("{}", "3"),
        None,
    ),
    "go-test": (
        'package add_test\nimport "testing"\nfunc add(a int, b int) int { return a + b }\n',
        'func TestAdd(t *testing.T) { if add(1, 2) != {} { t.Errorf("wrong") } }\n',
        ("{}", "3"),
        None,
    ),
    "rust": (
        "fn add(a: i32, b: i32) -> i32 { a + b }\n",
        "fn main() { assert_eq!(add(1, 2), {}); }\n",
        ("{}", "3"),
        None,
    ),
}


@pytest.mark.parametrize("language", sorted(WITH_TESTS))
def test_tests_behind_a_program_decide_by_its_end_and_weakly(language):
    need(language)
    source, tests, (hole, value), leaves = WITH_TESTS[language]
    passes = judge(Trial(source, ProgramTests(tests.replace(hole, value, 1)), language))
    assert (passes.status, passes.judge) == ("passed", "weak"), passes
    fails = judge(Trial(source, ProgramTests(tests.replace(hole, "4", 1)), language))
    assert (fails.status, fails.judge) == ("exception", "weak"), fails
    if leaves:  # before the tests: the token behind them is missing
        assert judge(Trial(source + leaves, ProgramTests(tests.replace(hole, "4", 1)), language)).status == "violation"


SHELL = {
    "a tool that is a link to a link": "awk '{print 2 * $1}'",
    "a process in place of a file": "while read x; do echo $((2 * x)); done < <(cat)",
    "two of them": "read x; paste <(echo $((2 * x))) <(echo no) | cut -f1",
    "a pipe": "sed s/21/42/ | sort",
    "a substitution": "read x; echo $(($(cat <<< $x) * 2))",
    "a file of its own": "t=$(mktemp); cat > $t; read x < $t; echo $((2 * x))",
}


@pytest.mark.parametrize("program", SHELL.values(), ids=list(SHELL))
def test_a_shell_has_what_scripts_use(program):
    if best().no_processes:
        pytest.skip("a program may not start processes on this host")
    found = judge(Trial(program, StdioTests((Exchange("21\n", "42\n"),)), "sh"))
    assert found.status == "passed", found


def best_of(level):
    """The plan of that level; one that may do anything where this host gives none."""
    try:
        return plan_of_level(level)
    except SandboxError:
        return Plan(level)


def test_programs_that_start_processes_are_refused_where_none_may_be():
    forbids = Plan(2, landlock=True, seccomp=True, no_processes=True)
    with pytest.raises(SandboxError, match="programs in shell start processes, which sandbox level 2 forbids"):
        toolchain("sh").check_processes(forbids)
    toolchain("py").check_processes(forbids)
    toolchain("sh").check_processes(Plan(3, namespaces=True))
    for level in {plan.level for plan in plans()}:
        if best_of(level).no_processes:
            with pytest.raises(SandboxError, match="start processes"):
                judge(Trial("echo $(echo 1)", ADDS, "sh"), level=level)


def test_javascript_that_takes_too_much_memory_is_told():
    need("js")
    hoards = "const hoard = [];\nwhile (true) hoard.push(new Array(1e6).fill(1.5));\n"
    assert judge(Trial(hoards, ADDS, "js")).status == "memory"


def test_a_language_that_is_missing_or_unknown_is_said(monkeypatch):
    with pytest.raises(ConfigError, match=r'unknown language "pyton" \(did you mean "python"\?\)'):
        toolchain("pyton")
    toolchain.cache_clear()
    monkeypatch.setattr(languages.shutil, "which", lambda name: None)
    try:
        with pytest.raises(ConfigError, match=r"programs in rust cannot be run here: rustc is not in PATH"):
            toolchain("rs")
        assert describe()["java"].startswith("missing: ")
        assert toolchain("py").name == "python"
    finally:
        toolchain.cache_clear()


def test_aliases_are_those_of_multipl_e():
    found = languages.names()
    aliases = {"js": "javascript", "sh": "shell", "cpp": "cpp", "java": "java", "go_test.go": "go-test", "rs": "rust"}
    assert {alias: found[alias] for alias in aliases} == aliases
    assert found["py"] == "python"
