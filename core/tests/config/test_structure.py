"""Plain TOML values become attrs classes strictly, with every fault reported."""

import enum
from pathlib import Path
from typing import Literal

import attrs
import pytest

from linkspan.core.config.structure import FaultsError, settings, structure


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen(kw_only=True)
class Inner:
    """A table inside.

    Attributes:
        port: Where it listens,
            and nothing else.
    """

    port: int = attrs.field(default=80, validator=attrs.validators.in_(range(1, 65536)))


@attrs.frozen(kw_only=True)
class Sample:
    """A sample.

    Attributes:
        root_dir: Where.
        stop_timeout_s: How long.
    """

    root_dir: Path
    stop_timeout_s: float = 10.0
    limit_bytes: int | None = None
    debug: bool = False
    ratio: float = 0.5
    args: tuple[str, ...] = ()
    names: list[str] = attrs.field(factory=list)
    env: dict[str, str] = attrs.field(factory=dict)
    inner: Inner = attrs.field(factory=Inner)
    level: Literal["low", "high"] = "low"
    color: Color = Color.RED
    low: int = 0
    high: int = attrs.field(default=10)

    @high.validator
    def _above_low(self, _attribute: object, value: int) -> None:
        if value < self.low:
            raise ValueError("must not be below low")


def faults(table: dict[str, object]) -> dict[str, tuple[str, str]]:
    with pytest.raises(FaultsError) as caught:
        structure(table, Sample)
    return {".".join(map(str, f.path)): (f.kind, f.message) for f in caught.value.faults}


def test_fields_are_written_in_kebab_case_and_units_in_the_value() -> None:
    sample = structure(
        {
            "root-dir": "/srv",
            "stop-timeout": "1m30s",
            "limit": "64m",
            "args": ["a"],
            "env": {"A_B": "c"},
            "inner": {"port": 5},
            "color": "blue",
            "ratio": 1,
        },
        Sample,
    )
    assert sample == Sample(
        root_dir=Path("/srv"),
        stop_timeout_s=90.0,
        limit_bytes=64 << 20,
        args=("a",),
        env={"A_B": "c"},
        inner=Inner(port=5),
        color=Color.BLUE,
        ratio=1.0,
    )


def test_all_faults_come_at_once_each_with_its_path() -> None:
    assert faults(
        {
            "debug": "false",
            "ratio": True,
            "args": ["a", 3, ["x"]],
            "env": {"k": 1},
            "inner": {"port": 70000, "prot": 1},
            "level": "medium",
            "stop-timeout": 7,
            "limit": "much",
            "stop_timeout_s": 1.0,
            "color": "green",
        }
    ) == {
        "root-dir": ("missing", "is required"),
        "debug": ("type", 'must be true or false, found the string "false"'),
        "ratio": ("type", "must be a number, found the boolean true"),
        "args.1": ("type", "must be a string, found the number 3"),
        "args.2": ("type", "must be a string, found an array"),
        "env.k": ("type", "must be a string, found the number 1"),
        "inner.port": ("range", "must be in range(1, 65536) (got 70000)"),
        "inner.prot": ("unknown", "is not a setting"),
        "level": ("type", 'must be one of "low", "high", found the string "medium"'),
        "stop-timeout": ("type", 'must be a duration such as "30s", found the number 7'),
        "limit": ("type", "is an invalid size: 'much'; write 512m, 2g or a number of bytes"),
        "stop_timeout_s": ("unknown", "is not a setting"),
        "color": ("type", 'must be one of "red", "blue", found the string "green"'),
    }


def test_a_validator_that_compares_two_fields_sees_both() -> None:
    assert faults({"root-dir": "/x", "low": 5, "high": 4}) == {
        "high": ("range", "must not be below low")
    }


def test_a_validator_runs_beside_a_wrong_type_elsewhere() -> None:
    assert set(faults({"root-dir": 1, "low": 5, "high": 4})) == {"root-dir", "high"}


def test_a_validator_that_needs_a_wrong_field_is_not_a_fault_of_its_own() -> None:
    assert set(faults({"root-dir": "/x", "low": "five", "high": 4})) == {"low"}


def test_a_number_is_not_a_table() -> None:
    with pytest.raises(FaultsError, match="must be a table, found the number 5"):
        structure(5, Sample)


def test_help_texts_come_from_the_docstring() -> None:
    assert [s.help for s in settings(Inner)] == ["Where it listens, and nothing else."]
    assert {s.key: s.help for s in settings(Sample)}["stop-timeout"] == "How long."
