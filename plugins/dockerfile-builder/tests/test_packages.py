"""What is installed in a file system, however it was installed."""

import sqlite3
import struct

import pytest

from linkspan.plugins.dockerfile_builder.packages import find_packages
from linkspan.plugins.dockerfile_builder.tree import EmptyTree, FolderTree

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4
Description: GNU C Library
 of several lines
 Version: not.this

Package: gone
Status: deinstall ok config-files
Version: 1

Package: held
Status: hold ok installed
Architecture: all
Version: 1:2-3
"""
APK = """\
C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
L:MIT
o:musl

P:musl-utils
V:1.2.5-r0
A:x86_64
L:MIT AND BSD-2-Clause
o:musl
"""


@pytest.fixture
def look(tmp_path):
    """Writes files, and finds ``kind name version`` of what they say is installed."""

    def make(files=(), links=(), **databases):
        for path, content in dict(files).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / path).write_bytes(data)
        for path, target in dict(links).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).symlink_to(target)
        tree = FolderTree(tmp_path)
        try:
            return find_packages(tree)
        finally:
            tree.close()

    return make


def rpm_header(**fields):
    """A header as rpm keeps it: name, version, release, arch, license texts, epoch a number."""
    tags = {"name": 1000, "version": 1001, "release": 1002, "license": 1014, "arch": 1022}
    entries, data = [], b""
    for name, value in fields.items():
        if name == "epoch":
            data += b"\0" * (-len(data) % 4)
            entries.append((1003, 4, len(data), 1))
            data += struct.pack(">I", value)
        else:
            entries.append((tags[name], 6, len(data), 1))
            data += value.encode() + b"\0"
    index = b"".join(struct.pack(">IIII", *entry) for entry in entries)
    return struct.pack(">II", len(entries), len(data)) + index + data


BASH = {"name": "bash", "version": "5.2", "release": "3", "license": "GPL-3.0-or-later"}
BIND = {"name": "bind", "version": "9.18", "release": "1", "arch": "x86_64", "epoch": 32}


def test_dpkg_apk_and_python_are_read_with_where_they_come_from(look):
    found = look(
        {
            "usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\n',
            "var/lib/dpkg/status": DPKG,
            "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12.4\n",
            "var/lib/dpkg/status.d/base.md5sums": "x  y\n",
            "lib/apk/db/installed": APK,
            "usr/lib/python3/dist-packages/PyYAML-6.0.egg-info/PKG-INFO": "Name: PyYAML\nVersion: 6.0\n",
            "opt/venv/lib/python3.12/site-packages/attrs-23.2.0.dist-info/METADATA": (
                "Metadata-Version: 2.4\nName: attrs\nVersion: 23.2.0\nLicense-Expression: MIT\n\nName: no\n"
            ),
            "srv/notes.dist-info/METADATA": "Name: nothing\nVersion: 1\n",
        },
        {"etc/os-release": "../usr/lib/os-release"},
    )
    assert found.unread == ()
    said = {(p.kind, p.name): p for p in found.packages}
    assert sorted(said) == [
        ("apk", "musl"),
        ("apk", "musl-utils"),
        ("deb", "base-files"),
        ("deb", "held"),
        ("deb", "libc6"),
        ("pypi", "PyYAML"),
        ("pypi", "attrs"),
    ]
    libc = said["deb", "libc6"]
    assert (libc.version, libc.architecture, libc.source) == ("2.36-9+deb12u4", "amd64", "glibc")
    assert (libc.namespace, libc.distro) == ("debian", "debian-12")
    assert said["deb", "held"].version == "1:2-3"
    assert (said["apk", "musl"].source, said["apk", "musl-utils"].source) == ("", "musl")
    assert said["apk", "musl-utils"].license == "MIT AND BSD-2-Clause"
    assert (said["pypi", "attrs"].license, said["pypi", "attrs"].namespace) == ("MIT", "")


def sqlite_of(path, *headers):
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(h,) for h in headers])
    database.commit()
    database.close()


def test_rpms_sqlite_is_read_once_wherever_it_lies(look, tmp_path):
    key = rpm_header(name="gpg-pubkey", version="a", release="b")
    database = tmp_path / "usr/lib/sysimage/rpm/rpmdb.sqlite"
    sqlite_of(database, rpm_header(**BASH), rpm_header(**BIND), key)
    found = look(
        {"etc/os-release": "ID=fedora\nVERSION_ID=40\n"},
        {"var/lib/rpm": "../../usr/lib/sysimage/rpm"},
    )
    assert [(p.name, p.version, p.architecture, p.distro) for p in found.packages] == [
        ("bash", "5.2-3", "", "fedora-40"),
        ("bind", "32:9.18-1", "x86_64", "fedora-40"),
    ]
    assert (found.packages[0].license, found.unread) == ("GPL-3.0-or-later", ())


def ndb_of(*headers):
    slots, blobs, at = b"", b"", 4096 // 16
    for number, header in enumerate(headers, 1):
        blob = struct.pack("<4sIII", b"BlbS", number, 1, len(header)) + header
        blob += b"\0" * (-len(blob) % 16)
        slots += struct.pack("<4sIII", b"Slot", number, at, len(blob) // 16)
        blobs += blob
        at += len(blob) // 16
    head = struct.pack("<4sIII16x", b"RpmP", 0, 1, 1) + slots
    while len(head) < 4096:
        head += struct.pack("<4sIII", b"Slot", 0, 0, 0)
    return head + blobs


def test_rpms_ndb_is_read(look):
    data = ndb_of(rpm_header(**BASH), rpm_header(**BIND))
    found = look({"usr/lib/sysimage/rpm/Packages.db": data})
    assert [(p.name, p.version) for p in found.packages] == [
        ("bash", "5.2-3"),
        ("bind", "32:9.18-1"),
    ]


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("var/lib/rpm/Packages", b"\0" * 100, "Berkeley DB"),
        ("var/lib/rpm/rpmdb.sqlite", b"nothing of the kind" * 100, "not a database"),
        ("var/lib/rpm/Packages.db", b"RpmP", "too short"),
        ("var/lib/rpm/Packages.db", b"x" * 5000, "no database"),
        ("var/lib/rpm/Packages.db", ndb_of(b"\xff" * 64), "damaged"),
        ("var/lib/rpm/Packages.db", ndb_of(rpm_header(**BASH)[:-4]), "damaged"),
    ],
)
def test_a_database_that_cannot_be_read_is_named_and_the_others_count(look, path, content, why):
    found = look({path: content, "var/lib/dpkg/status": DPKG})
    assert [p.name for p in found.packages] == ["held", "libc6"]
    (said,) = found.unread
    assert said.startswith(f"/{path}: ")
    assert why in said


def test_a_database_that_is_a_trap_ends(look, tmp_path):
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    database = sqlite3.connect(path)
    database.execute(
        "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS blob FROM n WHERE i < 0"
    )
    database.commit()
    database.close()
    assert "interrupted" in look().unread[0]


def test_links_that_lead_out_lead_inside(look):
    assert look(links={"var/lib/dpkg": "/../../../../../var/lib/dpkg"}).packages == ()
    assert look(links={"usr/lib/python3/site-packages": "/"}).packages == ()


def test_an_empty_file_system_has_nothing():
    assert find_packages(EmptyTree()).packages == ()


async def test_a_build_says_what_is_installed_and_what_it_stands_on(workshop):
    config = (
        b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'
    )
    base = workshop.engine.images.put(config, ())
    workshop.engine.images.tags["base:1"] = base.id
    files = {"Dockerfile": "FROM base:1\nCOPY status /var/lib/dpkg/status\n", "status": DPKG}
    result, _ = await workshop.build(files, packages=True)
    assert [p.name for p in result.packages] == ["held", "libc6"]
    assert [(b.name, b.image_id, b.digest) for b in result.bases] == [("base:1", base.id, "")]
    again, _ = await workshop.build(files)
    assert (again.image_id, again.packages) == (result.image_id, ())
