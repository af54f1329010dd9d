"""Reading proc(5) mountinfo."""

import os
from pathlib import Path

from linkspan.sdk.mountinfo import mounts, parse, unescape

TEXT = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 0:35 /a /srv/two\\040words\\134 rw,nosuid shared:7 master:2 - tmpfs tmpfs rw,size=64k

41 22 0:36 / /x\x85y rw - overlay overlay rw,lowerdir=/l\\0541:/l2,upperdir=/u
broken
42 22 0:37 / /none rw - proc
"""


def test_a_line_says_what_is_mounted_where():
    root, srv, _, none = parse(TEXT)
    assert (root.device, root.target, root.file_system) == ("8:1", "/", "ext4")
    assert root.options == ("rw", "errors=remount-ro")
    assert (srv.target, srv.groups) == ("/srv/two words\\", ("shared:7", "master:2"))
    assert (none.file_system, none.options) == ("proc", ("",))


def test_only_a_line_feed_ends_a_line_and_options_keep_their_signs():
    overlay = list(parse(TEXT))[2]
    assert (overlay.target, overlay.groups) == ("/x\x85y", ())
    values = dict(option.partition("=")[::2] for option in overlay.options)
    assert unescape(values["lowerdir"]) == "/l,1:/l2"


def test_the_mounts_of_this_process_are_read():
    device = Path("/proc").stat().st_dev
    (proc, *_) = [mount for mount in mounts() if mount.target == "/proc"]
    assert proc.device == f"{os.major(device)}:{os.minor(device)}"
    assert proc in mounts(os.getpid())
