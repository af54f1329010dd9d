"""What is printed can be read again."""

import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from linkspan.core.config.load import load_config
from linkspan.core.config.report import Table, default_text, in_force, toml, toml_key, written
from linkspan.core.config.schema import DaemonConfig
from linkspan.sdk.units import parse_duration

plain = st.recursive(
    st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(plain)
def test_any_plain_value_reads_back(value: Any) -> None:
    assert tomllib.loads(f"k = {toml(value)}")["k"] == value


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_key_reads_back(key: str) -> None:
    assert tomllib.loads(f"{toml_key(key)} = 1") == {key: 1}


@given(st.integers(0, 10**6) | st.integers(1, 10**6).map(lambda n: n / 1000))
def test_any_duration_reads_back(seconds: float) -> None:
    text = tomllib.loads(f"k = {written(float(seconds), 'duration')}")["k"]
    assert parse_duration(text) == pytest.approx(seconds)


@attrs.frozen(kw_only=True)
class NfsConfig:
    """Volumes on an NFS server.

    Attributes:
        server: Host name.
    """

    server: str
    retries: int = 3


def test_a_default_file_explains_every_setting() -> None:
    text = default_text(
        [Table.of(("volume", "nfs"), NfsConfig), Table.of(("x",), NfsConfig, optional=True)]
    )
    assert (
        "# Volumes on an NFS server.\n[volume.nfs]\n## Host name.\n# server = …   (required)\n# retries = 3\n"
        in text
    )
    assert "\n# [x]\n" in text


def test_what_is_in_force_comes_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[daemon]\ndata-root = "/x"\n[mystery]\nkey = [1]\n')
    config = load_config([file], {"daemon.exec-root": "/y"})
    shown = {
        s.path: (s.value, s.origin) for s in in_force(config, [Table.of(("daemon",), DaemonConfig)])
    }
    assert shown["daemon.data-root"] == ('"/x"', f"{file}:2")
    assert shown["daemon.exec-root"] == ('"/y"', "command line")
    assert shown["daemon.autostart"] == ("true", "default")
    assert shown["mystery.key"] == ("[1]", f"{file}:4")
    assert "daemon.bip" not in shown
