import pytest

from linkspan.plugins.docker_api.document import Document, map_parameter
from linkspan.plugins.docker_api.filters import parse_nanoseconds, parse_time
from linkspan.plugins.docker_api.timestamps import epoch_s
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import human_duration


def test_names_match_in_any_case_and_their_own_first() -> None:
    body = Document({"mode": {"replicated": {"Replicas": 2}}, "name": "a", "Name": "b"})
    assert body.document("Mode").document("Replicated").number("Replicas") == 2
    assert body.text("Name") == "b"


def test_maps_keep_their_keys() -> None:
    assert Document({"Labels": {"A": None, "a": "x"}}).text_map("Labels") == {"A": "", "a": "x"}


def test_null_and_absent_are_the_default() -> None:
    body = Document({"A": None})
    assert (body.text("A"), body.number("A", 3), body.flag("B", True), body.texts("A")) == (
        "",
        3,
        True,
        (),
    )
    assert "A" not in body


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda d: d.text("N"), "N must be a string, not a number"),
        (lambda d: d.number("T"), "T must be a whole number, not a string"),
        (lambda d: d.number("B"), "B must be a whole number, not a boolean"),
        (lambda d: d.number("F"), "F must be a whole number, not a number"),
        (lambda d: d.number("H"), "H must fit into 64 bits"),
        (lambda d: d.number("E"), "E must fit into 64 bits"),
        (lambda d: d.flag("N"), "N must be a boolean, not a number"),
        (lambda d: d.texts("T"), "T must be an array, not a string"),
        (lambda d: d.document("T"), "T must be an object, not a string"),
        (lambda d: list(d.documents("L")), "L[0] must be an object, not a string"),
        (lambda d: d.text_map("M"), "M.k must be a string, not a number"),
    ],
)
def test_another_type_is_named_with_its_place(read, message) -> None:
    body = Document({"N": 1, "T": "x", "B": True, "F": 1.5, "L": ["x"], "M": {"k": 1}})
    body = Document({**body.value, "H": 2**63, "E": 1e300})
    with pytest.raises(InvalidArgument, match=r"^invalid JSON: ") as caught:
        read(body)
    assert caught.value.message == f"invalid JSON: {message}"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "[" * 100_000])
def test_a_map_in_a_parameter_is_checked(text) -> None:
    with pytest.raises(InvalidArgument):
        map_parameter("buildargs", text)


def test_times() -> None:
    assert parse_nanoseconds("1700000000.000000001") == 1_700_000_000_000_000_001
    assert parse_nanoseconds("0") is None
    assert parse_nanoseconds("2023-11-14T22:13:20Z") == 1_700_000_000 * 10**9
    assert abs(parse_time("10m") - (parse_time("0s") - 600)) < 1
    assert epoch_s("2023-11-14T22:13:20.123456789Z") == pytest.approx(1_700_000_000.123456)
    assert epoch_s("") == epoch_s("0001-01-01T00:00:00Z") == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1.2, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (46 * 60, "46 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (61 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_in_dockers_words(seconds, words) -> None:
    assert human_duration(seconds) == words


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1e400", "--5", "1e3", "1_000", "9" * 20, "²", " 5"]
)
def test_what_only_python_takes_for_a_number_is_no_time(text: str) -> None:
    with pytest.raises(InvalidArgument, match="failed to parse value"):
        parse_nanoseconds(text)


def test_a_time_beyond_64_bits_is_the_last_one() -> None:
    assert parse_nanoseconds(f"{2**62}") == 2**63 - 1
    assert parse_nanoseconds(f"-{2**62}.5") == 1 - 2**63
    assert parse_nanoseconds("9999-12-31T23:59:59-14:00") == 2**63 - 1


@pytest.mark.parametrize("value", [-1, 2**16, 2**70, -(2**63)])
def test_a_number_of_16_bits_is_kept_in_them(value: int) -> None:
    with pytest.raises(InvalidArgument, match=r"invalid JSON: top\.Weight must"):
        Document({"Weight": value}, "top").unsigned("Weight", 16)
    assert Document({"Weight": 2**16 - 1}).unsigned("Weight", 16) == 2**16 - 1
