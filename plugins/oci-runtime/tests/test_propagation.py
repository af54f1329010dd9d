"""Propagation of mounts."""

import pytest

from linkspan.plugins.oci_runtime import propagation
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.mountinfo import parse

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /private rw - tmpfs tmpfs rw
41 22 0:41 / /follows rw master:7 - tmpfs tmpfs rw
42 22 0:42 / /with\\040blank rw shared:9 master:7 - tmpfs tmpfs rw
43 22 0:43 / /covered rw shared:8 - tmpfs tmpfs rw
44 43 0:44 / /covered rw - tmpfs tmpfs rw
"""


def bind(source: str, *options: str) -> BundleMount:
    return BundleMount(destination="/x", type="bind", source=source, options=("rbind", *options))


@pytest.mark.parametrize(
    ("source", "option"),
    [
        ("/somewhere", "rshared"),
        ("/privateer", "shared"),
        ("/with blank/x", "rshared"),
        ("/follows/x", "rslave"),
        ("/somewhere", "slave"),
        ("/private", "rprivate"),
    ],
)
def test_what_can_have_an_effect_is_accepted(source: str, option: str) -> None:
    propagation.check([bind(source, option)], list(parse(MOUNTINFO)))


@pytest.mark.parametrize(
    ("source", "option", "text"),
    [
        ("/private/x", "rshared", "mounted on /private but it is not a shared mount"),
        ("/private", "rslave", "not a shared or slave mount"),
        ("/follows", "shared", "mounted on /follows but it is not a shared mount"),
        ("/covered/x", "rshared", "mounted on /covered"),
    ],
)
def test_what_would_silently_have_none_is_refused(source: str, option: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        propagation.check([bind(source, option)], list(parse(MOUNTINFO)))


def test_the_root_lets_it_through() -> None:
    root = propagation.root_propagation
    assert root([bind("/a", "rprivate")]) is None
    assert root([bind("/a", "rslave"), bind("/b", "rprivate")]) == "rslave"
    assert root([bind("/a", "rslave"), bind("/b", "rshared")]) == "shared"
    assert root([BundleMount(destination="/t", type="tmpfs", options=("shared",))]) is None
