"""The reference pages say what the code does."""

from pathlib import Path

import attrs
import pytest

from linkspan.core.cli import reference
from linkspan.core.config.report import written
from linkspan.core.config.schema import DEFAULT_DRIVERS, DaemonConfig, PluginsConfig
from linkspan.core.config.structure import settings

PAGES = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_of_commands_is_up_to_date() -> None:
    again = "python -m linkspan.core.cli.reference > docs/reference/commands.md"
    assert (PAGES / "commands.md").read_text() == reference.render(), again


@pytest.mark.parametrize("config_type", [DaemonConfig, PluginsConfig])
def test_every_setting_of_the_core_is_on_the_page_with_its_default(
    config_type: type[attrs.AttrsInstance],
) -> None:
    lines = (PAGES / "config.md").read_text().splitlines()
    made = config_type()
    for setting in settings(config_type):
        default = written(getattr(made, setting.field.name), setting.unit)
        cell = f"`{default}`" if default else ""
        assert any(line.startswith(f"| `{setting.key}` | {cell}".rstrip()) for line in lines), (
            setting.key
        )


def test_every_role_is_on_the_page_with_its_default_driver() -> None:
    text = (PAGES / "config.md").read_text()
    for role, driver in DEFAULT_DRIVERS.items():
        assert f"| `{role}` | `{driver}` |" in text
