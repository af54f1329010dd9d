"""The scenarios of the guide are true of the pipeline of the guide."""

import re
from pathlib import Path

import pytest

from linkspan.workflows.commands.reading import installed
from linkspan.workflows.scenarios.loading import load_scenarios
from linkspan.workflows.scenarios.playing import play, playground

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "pipelines.md"
BLOCK = re.compile(r"```yaml\n# (\.linkspan/\S+)\n(.*?)```", re.DOTALL)


def test_the_scenarios_of_the_guide_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = dict(BLOCK.findall(PAGE.read_text()))
    monkeypatch.chdir(tmp_path)
    for name in (".linkspan/release.yaml", ".linkspan/tests/release.yaml"):
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(blocks[name])
    verbs = installed()
    loaded = load_scenarios(path, path.read_bytes(), verbs)
    assert loaded.diagnostics == ()
    assert loaded.found is not None
    assert len(loaded.found.scenarios) == 3
    with playground() as folder:
        for scenario in loaded.found.scenarios:
            assert play(loaded.found, scenario, verbs, folder).mismatches == []
