"""The sentences of docs/reference/networks.md each have a test that names its number, and the page names it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TESTS = [*Path(__file__).parent.glob("test_*.py"), ROOT / "tests/api/test_docker_networks.py"]


def named_by_number() -> dict[int, set[str]]:
    """Number → ``reachability::a_published_port_…`` of each test that names it."""
    found: dict[int, set[str]] = {}
    for path in TESTS:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("test_"):
                continue
            name = f"{path.stem.removeprefix('test_')}::{node.name.removeprefix('test_')}"
            body = ast.get_source_segment(text, node) or ""
            for numbers in re.findall(r"[Bb]ehaviours? ([\d, ]+\d|\d+)", body):
                for number in re.findall(r"\d+", numbers):
                    found.setdefault(int(number), set()).add(name)
    return found


def test_each_behaviour_is_shown_by_the_test_that_the_page_names():
    page = (ROOT / "docs/reference/networks.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", page, re.MULTILINE)
    shown = {int(number): set(re.findall(r"`(\w+::\w+)`", tests)) for number, tests in rows}
    tests = named_by_number()
    assert len(rows) == len(shown)
    assert set(shown) == set(range(1, 81))
    assert set(tests) == set(shown), "these are no behaviours, or no test names them"
    wrong = {
        number: names - tests[number]
        for number, names in shown.items()
        if not names <= tests[number]
    }
    assert wrong == {}, "these tests are not there, or do not name the number"
    assert all(shown.values())
