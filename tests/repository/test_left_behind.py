"""What tests leave on the machine is seen, named and taken away."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"


def run_tests(folder: Path, text: str) -> tuple[int, str]:
    """Exit status and words of a pytest of its own, with the plugin and a file of tests."""
    (folder / "test_it.py").write_text("import os, subprocess, tempfile, pytest\n" + text)
    words = ("-p", "left_behind", "-p", "no:cacheprovider", "-o", "left_behind_patience=0.5")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *words, f"--basetemp={folder}/temp", folder],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return done.returncode, done.stdout + done.stderr


LEAVES = """\
def test_it(tmp_path):
    (tmp_path / "not counted").touch()
    subprocess.run(["true"])
    subprocess.Popen(["sleep", "617"], start_new_session=True)
    tempfile.mkdtemp(prefix="forgotten-")
    os.mkdir(f"/tmp/ls-{os.environ['LINKSPAN_TESTS_MARK']}x")
    os.open("/etc/hosts", os.O_RDONLY)
    os.chdir("/etc")
    os.environ["SMUGGLED"] = "rum"
"""
NAMED = (
    r"descriptor: /etc/hosts",
    r"file (/tmp/ls-\w+x)",
    r"file (/tmp/lt-\w+/forgotten-\w+)",
    r"process (\d+): sleep 617",
    r"variable SMUGGLED=rum",
    r"working directory /etc",
)


def test_what_a_file_leaves_is_named_and_taken_away(tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, LEAVES)
    assert status == 1, said
    assert "ERROR at teardown of test_it" in said
    lines = said.partition("left behind:\n")[2].splitlines()
    found = [re.fullmatch(named, line) for named, line in zip(NAMED, lines, strict=False)]
    assert all(found), said
    _, file, folder, process, *_ = found
    assert file
    assert folder
    assert process
    assert not Path(file[1]).exists()
    assert not Path(folder[1]).exists()
    assert not Path("/proc", process[1], "exe").exists()


def test_what_comes_after_the_last_file_is_named_at_the_end(tmp_path: Path) -> None:
    text = (
        "@pytest.fixture(scope='session')\n"
        "def late():\n"
        "    yield\n"
        "    tempfile.mkdtemp(prefix='late-')\n"
        "def test_it(late):\n    pass\n"
    )
    status, said = run_tests(tmp_path, text)
    assert status == pytest.ExitCode.INTERNAL_ERROR, said
    assert "left behind by the whole run" in said
    assert "/late-" in said
