"""The sentences of docs/reference/networks.md each have a test that names its number."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TESTS = [*Path(__file__).parent.glob("test_*.py"), ROOT / "tests/api/test_docker_networks.py"]


def test_each_behaviour_has_a_test_that_names_it():
    page = (ROOT / "docs/reference/networks.md").read_text()
    promised = {int(number) for number in re.findall(r"^(\d+)\. ", page, re.MULTILINE)}
    named = set()
    for path in TESTS:
        for numbers in re.findall(r"[Bb]ehaviours? ([\d, ]+\d|\d+)", path.read_text()):
            named |= {int(number) for number in re.findall(r"\d+", numbers)}
    assert promised == set(range(1, 81))
    assert promised - named == set(), "no test names these"
    assert named - promised == set(), "these are no behaviours"
