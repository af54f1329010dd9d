"""Instructions of ``commit --change`` and ``import --change``."""

import pytest

from linkspan.plugins.dockerfile_builder.changes import change_config
from linkspan.sdk.errors import InvalidArgument


def test_changes_apply_in_order_and_leave_the_rest() -> None:
    before = {"Env": ["PATH=/bin", "A=1"], "Cmd": ["old"], "Labels": {"kept": "1"}}
    after = change_config(
        before,
        [
            "ENV A=2 B=$A",
            'CMD ["run", "it"]',
            "LABEL new=$B",
            "EXPOSE 80 53/udp",
            "WORKDIR /srv",
            "WORKDIR app",
            "USER web",
            "VOLUME /data",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
        ],
    )
    assert after == {
        "Env": ["PATH=/bin", "A=2", "B=1"],
        "Cmd": ["run", "it"],
        "Labels": {"kept": "1", "new": "1"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "WorkingDir": "/srv/app",
        "User": "web",
        "Volumes": {"/data": {}},
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN true"],
    }
    assert before["Cmd"] == ["old"]


def test_the_shell_form_goes_through_the_shell() -> None:
    assert change_config({}, ["ENTRYPOINT echo hi"])["Entrypoint"] == ["/bin/sh", "-c", "echo hi"]


def test_no_changes_change_nothing() -> None:
    assert change_config({"User": "x"}, ["", "  "]) == {"User": "x"}


@pytest.mark.parametrize("change", ["RUN true", "COPY a b", "FROM scratch", "SHELL []"])
def test_what_needs_a_build_is_refused(change: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a valid change command"):
        change_config({}, [change])


@pytest.mark.parametrize("change", ["EXPOSE no", "LABEL", "NOTHING x", "ENV"])
def test_what_cannot_be_read_is_refused(change: str) -> None:
    with pytest.raises(InvalidArgument):
        change_config({}, [change])
