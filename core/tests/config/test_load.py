"""Files are merged in order, faults are shown where they stand."""

from pathlib import Path
from textwrap import dedent

import attrs
import pytest

from linkspan.core.config.load import ConfigError, load_config, read_config

PLAIN_TCP = (
    "tcp://0.0.0.0:2375 is plain TCP, which anybody could use; it takes tls-verify, tls-ca-cert, tls-cert "
    "and tls-key"
)


@attrs.frozen(kw_only=True)
class NfsConfig:
    server: str
    retries: int = attrs.field(default=3, validator=attrs.validators.ge(0))


@pytest.fixture(autouse=True)
def no_config_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINKSPAN_CONFIG", raising=False)


def write(path: Path, text: str) -> Path:
    path.write_text(dedent(text))
    return path


def test_without_files_everything_has_a_default() -> None:
    config = load_config([])
    assert config.daemon.data_root == Path("/var/lib/linkspan")
    assert config.daemon.host == ("unix:///run/linkspan/linkspan.sock",)
    assert config.daemon.autostart
    assert config.role("runtime").driver == "oci"
    assert config.role("state").driver == "sqlite"


def test_later_files_replace_single_keys_and_flags_replace_files(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one.toml",
        """\
        [daemon]
        data-root = "/one"
        insecure-registries = ["a:5000", "b:5000"]
        [volume]
        driver = "nfs"
        nfs.server = "one"
        """,
    )
    two = write(
        tmp_path / "two.toml",
        """\
        [daemon]
        insecure-registries = ["c:5000"]
        [volume.nfs]
        retries = 5
        """,
    )
    config = load_config([one, two], {"daemon.data-root": Path("/flag"), "daemon.bip": None})
    assert config.daemon.data_root == Path("/flag")
    assert config.daemon.insecure_registries == ("c:5000",)
    assert config.role("volume").driver == "nfs"
    assert config.driver_config("volume", "nfs", NfsConfig) == NfsConfig(server="one", retries=5)
    assert config.origin(("daemon", "data-root")).place == "command line"
    assert config.origin(("daemon", "insecure-registries")).place == f"{two}:2"
    assert config.origin(("volume", "nfs", "server")).place == f"{one}:6"
    assert config.origin(("volume", "nfs", "retries")).place == f"{two}:4"
    assert ("daemon", "insecure-registries", 1) not in config.origins


def test_all_faults_are_shown_where_they_stand(tmp_path: Path) -> None:
    file = write(
        tmp_path / "linkspan.toml",
        """\
        [daemon]
        data-rot = "/x"
        autostart = "no"
        host = ["tcp://0.0.0.0:2375"]
        [runtime]
        driver = 5
        oci = 7
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load_config([file])
    assert str(caught.value) == dedent(
        f"""\
        error[LS2010]: 'runtime.driver' must be a driver's name, found the number 5
         --> {file}:6:10
          |
        6 | driver = 5
          |          ^

        error[LS2001]: [runtime] has no setting 'oci'
         --> {file}:7:1
          |
        7 | oci = 7
          | ^^^
          = help: a driver's settings stand under its own table, [runtime.oci]

        error[LS2001]: the daemon has no setting 'daemon.data-rot'
         --> {file}:2:1
          |
        2 | data-rot = "/x"
          | ^^^^^^^^
          = help: did you mean 'data-root'?

        error[LS2010]: 'daemon.autostart' must be true or false, found the string "no"
         --> {file}:3:13
          |
        3 | autostart = "no"
          |             ^^^^

        error[LS2011]: 'daemon.host': {PLAIN_TCP}
         --> {file}:4:8
          |
        4 | host = ["tcp://0.0.0.0:2375"]
          |        ^^^^^^^^^^^^^^^^^^^^^^"""
    )


def test_a_driver_table_is_checked_with_the_drivers_class(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[volume.nfs]\nretries = -1\nserve = "x"\n')
    with pytest.raises(ConfigError) as caught:
        load_config([file]).driver_config("volume", "nfs", NfsConfig)
    assert [
        (d.id, d.headline, d.place.removeprefix(f"{file}:")) for d in caught.value.diagnostics
    ] == [
        ("LS2001", "volume driver 'nfs' has no setting 'volume.nfs.serve'", "3:1"),
        ("LS2104", "volume driver 'nfs' needs 'server'", "1:9"),
        ("LS2011", "'volume.nfs.retries': must be >= 0: -1", "2:11"),
    ]


def test_unknown_tables_are_named_with_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[vollume]\n[registry-server]\nlisten = "127.0.0.1:5000"\n')
    config = load_config([file])
    (fault,) = config.check_tables(["registry-server"])
    assert (fault.id, fault.headline, fault.helps) == (
        "LS2001",
        "unknown table 'vollume'",
        ("did you mean 'volume'?",),
    )


@pytest.mark.parametrize(
    ("text", "headline", "place"),
    [
        ("a = 1\nb = \n", "not valid TOML: invalid value", "2:5"),
        ("[daemon]\na = 1\na = 2\n", "not valid TOML: cannot overwrite a value", "3:6"),
        ('a = "x', "not valid TOML: unterminated string", "1:7"),
        ("a = [1, 2", "not valid TOML: unclosed array", "1:10"),
    ],
)
def test_broken_toml_is_shown_with_line_and_column(
    tmp_path: Path, text: str, headline: str, place: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    _, (fault,) = read_config([file])
    assert (fault.id, fault.place) == ("LS2002", f"{file}:{place}")
    assert fault.headline.startswith(headline)


def test_a_byte_order_mark_and_carriage_returns_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b'\xef\xbb\xbf[daemon]\r\nbip = "10.9.0.1/16"\r\n')
    config = load_config([file])
    assert config.daemon.bip == "10.9.0.1/16"
    assert config.origin(("daemon", "bip")).place == f"{file}:2"


def test_text_that_is_not_utf8_is_shown_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b'[daemon]\nbip = "\xff"\n')
    _, (fault,) = read_config([file])
    assert (fault.id, fault.place) == ("LS2002", f"{file}:2:8")


def test_deep_nesting_is_refused_and_does_not_crash(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("a = " + "[" * 50_000 + "]" * 50_000)
    _, faults = read_config([file])
    assert [f.id for f in faults] == ["LS2002"]


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the config file: No such file"):
        load_config([tmp_path / "absent.toml"])


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load_config([file])


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.toml", '[daemon]\nlog-level = "debug"\n')
    monkeypatch.setenv("LINKSPAN_CONFIG", str(file))
    assert load_config().daemon.log_level == "debug"


def test_a_fault_of_a_flag_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([], {"daemon.bip": "10.0.0.0/8"})
    assert "--> command line" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("labels", ["zone"], "'zone' is not of the form KEY=VALUE"),
        ("labels", ["a=1", "a=2"], "conflict labels for a=2 and a=1"),
        ("labels", ["com.docker.x=1"], "Docker keeps names that begin like this to itself"),
        ("node-generic-resources", ["gpu"], "incorrect term gpu, missing '='"),
        ("node-generic-resources", ["gpu=1", "gpu=a"], "mixed discrete and named resources"),
    ],
)
def test_labels_and_resources_that_are_none_are_refused(
    key: str, value: list[str], why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([], {f"daemon.{key}": value})
    assert why in str(caught.value)


def test_a_role_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(Exception, match="there is no role 'vollume'"):
        load_config([]).role("vollume")
