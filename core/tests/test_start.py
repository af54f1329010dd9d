"""What starts a daemon looks at the config without the time that checking it takes."""

import subprocess
import sys
from pathlib import Path

import pytest

from linkspan.core.config.load import ConfigError, load_config
from linkspan.core.daemon.start import NotStarted, _exec_root, ensure_running


def test_it_is_imported_without_what_checks_a_config() -> None:
    code = (
        "import sys, linkspan.core.daemon.start as s; "
        "print({'attr', 'cattrs', 'trio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("", {}),
        ('[daemon]\nexec-root = "/run/here"\n', {}),
        ('[daemon]\nexec-root = "/run/here"\n', {"daemon.exec-root": Path("/run/there")}),
        ("", {"daemon.exec-root": None}),
    ],
)
def test_its_folder_is_the_one_that_the_daemon_will_have(
    tmp_path: Path, config: str, overrides: dict[str, Path | None]
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(config)
    expected = load_config([file], overrides).daemon.exec_root
    assert _exec_root(str(file), overrides) == expected


@pytest.mark.parametrize("value", ['"run/here"', "7"])
def test_a_folder_that_is_none_is_told_before_anything_is_made(tmp_path: Path, value: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f"[daemon]\nexec-root = {value}\n")
    with pytest.raises(ConfigError, match="exec-root"):
        ensure_running(f"unix://{tmp_path}/s", config=str(file))
    assert list(tmp_path.iterdir()) == [file]


def test_a_daemon_that_does_not_start_for_its_config_is_told_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[daemon]\nexec-root = "{tmp_path}/run"\nnonsense = 1\n')
    with pytest.raises(ConfigError, match="nonsense") as caught:
        ensure_running(f"unix://{tmp_path}/s", config=str(file))
    assert isinstance(caught.value.__context__, NotStarted)
