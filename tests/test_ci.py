"""The continuous integration installs every real part that a test asks for, and a test without its part says so."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
CI: Final = (ROOT / ".ci" / "run").read_text()

# What comes with a package of another name, or stays away on purpose.
BESIDE: Final = {
    "keytool": "java",
    "umount": "mount",
    "pg_ctl": "initdb",
    "taskset": "unshare",  # util-linux
    "initdb": "postgresql",
}
WITHOUT: Final = frozenset(
    {
        "wrk",  # a second opinion of the benchmark, which does without
        "bash",  # essential on Debian
        "make",  # runs the tests
    }
)


def calls(*names: str) -> Iterator[ast.Call]:
    """Yield the calls of functions in the tests."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                yield node


def words(call: ast.Call) -> Iterator[str]:
    """Yield the program that a call names: its first argument, or the first word of it."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.List) and first.elts:
        first = first.elts[0]
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        yield first.value


def test_every_program_that_a_test_runs_or_looks_for_is_installed() -> None:
    asked = {word for call in calls("shutil.which", "subprocess.run", "subprocess.Popen") for word in words(call)}
    assert {"java", "openssl", "git", "promtool"} <= asked
    wanted = {BESIDE.get(word, word) for word in asked - WITHOUT}
    assert [] == sorted(word for word in wanted if word not in CI)


def test_every_test_that_is_left_out_says_why_in_a_sentence() -> None:
    reasons = [keyword.value for call in calls("pytest.mark.skipif") for keyword in call.keywords if keyword.arg]
    reasons += [call.args[0] for call in calls("pytest.skip") if call.args]
    assert len(reasons) > 10
    said = [reason.value for reason in reasons if isinstance(reason, ast.Constant)]
    assert [] == [text for text in said if len(str(text).split()) < 4]
    assert [] == [ast.unparse(call) for call in calls("pytest.skip") if not call.args]
