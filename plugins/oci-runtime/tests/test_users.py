import os
from pathlib import Path

import pytest

from linkspan.plugins.oci_runtime.rootfs import make_folder
from linkspan.plugins.oci_runtime.users import Identity, look_up
from linkspan.sdk.errors import InvalidArgument


@pytest.fixture
def root(tmp_path: Path) -> Path:
    etc = tmp_path / "root/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(
        "# comment\nroot:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:An App:/home/app:/bin/sh\n"
        "short:x:5:6\nbroken:x:zz:1\n"
    )
    (etc / "group").write_text("root:x:0:\nwheel:x:10:root,app\nlog:x:40:app,other\nbad\n")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(uid=0, gid=0, groups=(0, 10), home="/root")),
        ("root", Identity(uid=0, gid=0, groups=(0, 10), home="/root")),
        ("app", Identity(uid=1000, gid=1001, groups=(10, 40, 1001), home="/home/app")),
        ("1000", Identity(uid=1000, gid=1001, groups=(10, 40, 1001), home="/home/app")),
        ("app:log", Identity(uid=1000, gid=40, groups=(40,), home="/home/app")),
        ("app:77", Identity(uid=1000, gid=77, groups=(77,), home="/home/app")),
        ("4711", Identity(uid=4711, gid=0, groups=(0,), home="/")),
        ("4711:12", Identity(uid=4711, gid=12, groups=(12,), home="/")),
        ("short", Identity(uid=5, gid=6, groups=(6,), home="/")),
    ],
)
def test_users_are_found_as_docker_finds_them(root: Path, user: str, expected: Identity) -> None:
    assert look_up(root, user) == expected


def test_further_groups_are_added_by_name_or_number(root: Path) -> None:
    assert look_up(root, "4711", ("log", "99")).groups == (0, 40, 99)


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ("nobody", "user_not_found"),
        ("app:nogroup", "group_not_found"),
        ("99999999999", "user_not_found"),
        ("2147483648", "user_not_found"),
        ("-1", "user_not_found"),
        ("broken", "user_not_found"),
    ],
)
def test_unknown_names_are_refused(root: Path, user: str, code: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        look_up(root, user)
    assert caught.value.code == code


def test_without_files_numbers_and_root_work(tmp_path: Path) -> None:
    assert look_up(tmp_path, "").uid == 0
    assert look_up(tmp_path, "12:13").gid == 13


def test_links_of_the_container_do_not_lead_to_the_hosts_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    outside = tmp_path / "passwd"
    outside.write_text("evil:x:666:666::/:/bin/sh\n")
    (root / "etc/passwd").symlink_to("../../passwd")
    (root / "etc/group").symlink_to(outside)
    with pytest.raises(InvalidArgument):
        look_up(root, "evil")
    (root / "passwd").write_text("good:x:7:7::/:/bin/sh\n")
    assert look_up(root, "good").uid == 7


def test_a_pipe_instead_of_a_file_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    assert look_up(tmp_path, "5").uid == 5


def test_a_working_directory_is_made_inside_the_root_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("../../outside")
    make_folder(root, "/srv/app/data")
    assert (root / "srv/app/data").is_dir()
    make_folder(root, "/srv/app/data")
    make_folder(root, "/out/made")
    make_folder(root, "/up/made")
    make_folder(root, "/../../outside/made")
    assert list(outside.iterdir()) == []
    (root / "file").touch()
    make_folder(root, "/file/made")
