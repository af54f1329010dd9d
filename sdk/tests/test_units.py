"""Quantities, read and shown."""

import pytest

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import (
    counted,
    format_duration,
    format_size,
    human_duration,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1024", 1024), ("64m", 64 << 20), ("512Mi", 512 << 20), ("2GB", 2 << 30), ("1.5k", 1536)],
)
def test_sizes_are_read_as_powers_of_1024(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("1.5s", 1.5), ("1h30m", 5400.0), ("0", 0.0)]
)
def test_durations_are_read_in_seconds(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "-1", "1 apple", "1e3", "٣m"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(InvalidArgument):
        parse_size(text)
    with pytest.raises(InvalidArgument):
        parse_duration(text)


@pytest.mark.parametrize(
    ("count", "three", "four"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1024, "1.02kB", "1.024kB"),
        (1_234_567, "1.23MB", "1.235MB"),
        (141_000_000, "141MB", "141MB"),
        (10**16, "10PB", "10PB"),
    ],
)
def test_sizes_are_shown_decimal_with_as_many_digits_as_asked(count, three, four):
    assert (format_size(count), format_size(count, 4)) == (three, four)


def test_durations_are_shown_short_or_in_dockers_words():
    assert [format_duration(s) for s in (0.038, 64, 7500)] == ["38ms", "1m04s", "2h05m"]
    assert human_duration(3700) == "About an hour"
    assert human_duration(3 * 86400) == "3 days"


def test_a_count_agrees_with_its_noun():
    said = [counted(n, "file") for n in (0, 1, 2)]
    assert said == ["0 files", "1 file", "2 files"]
    assert counted(0, "error", none="no") == "no errors"
