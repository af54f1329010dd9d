import errno
from ipaddress import IPv4Address

import pytest

from linkspan.plugins.bridge_network import sandbox_files
from linkspan.plugins.bridge_network.sandbox_files import (
    ResolverSettings,
    SandboxFiles,
    failure,
    hosts_text,
    own_names,
    parse_extra_hosts,
    parse_resolv_conf,
    reachable_from_container,
    with_wishes,
)
from linkspan.sdk.errors import Internal, InvalidArgument, OutOfSpace


def test_a_resolv_conf_is_read_as_the_resolver_does():
    text = (
        "# x\nnameserver 10.0.0.1\nnameserver ::1\ndomain a\nsearch b c\noptions ndots:2 rotate\n"
    )
    assert parse_resolv_conf(text) == ResolverSettings(
        servers=("10.0.0.1", "::1"), search=("b", "c"), options=("ndots:2", "rotate")
    )


def test_a_containers_wishes_replace_the_hosts_settings_part_by_part():
    host = ResolverSettings(servers=("10.0.0.1",), search=("corp",), options=("rotate",))
    wishes = with_wishes(host, dns=("10.9.9.9",), search=(), options=())
    assert wishes == ResolverSettings(servers=("10.9.9.9",), search=("corp",), options=("rotate",))
    assert with_wishes(host, dns=(), search=(".",), options=()).search == ()


def test_servers_that_a_container_cannot_reach_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox_files, "_BEHIND_STUB", tmp_path / "resolv.conf")
    settings = ResolverSettings(servers=("127.0.0.53", "fd00::1", "10.0.0.1"))
    assert reachable_from_container(settings, ipv6=False).servers == ("10.0.0.1",)
    assert reachable_from_container(settings, ipv6=True).servers == ("fd00::1", "10.0.0.1")
    stub = ResolverSettings(servers=("127.0.0.53",))
    assert reachable_from_container(stub, ipv6=False).servers == ("8.8.8.8", "8.8.4.4")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    assert reachable_from_container(stub, ipv6=False).servers == ("192.0.2.53",)


def test_extra_hosts_are_read_and_the_gateway_put_in():
    gateway = IPv4Address("172.17.0.1")
    assert parse_extra_hosts(["a:10.0.0.1", "b:fd00::1", "c:host-gateway"], gateway) == [
        ("10.0.0.1", "a"),
        ("fd00::1", "b"),
        ("172.17.0.1", "c"),
    ]


@pytest.mark.parametrize("text", ["a", ":10.0.0.1", "a:", "a:ten", "a:host-gateway"])
def test_an_extra_host_that_is_none_is_refused(text):
    with pytest.raises(InvalidArgument, match="invalid extra host"):
        parse_extra_hosts([text], None)


def test_a_line_is_taken_out_of_the_hosts_file_and_others_stay(tmp_path):
    files = SandboxFiles(tmp_path / "c")
    files.write(hosts=hosts_text([("10.0.0.2", "web")], []), resolv_conf="", hostname="web")
    files.add_hosts([("10.1.0.2", "web")])
    path = tmp_path / "c" / "hosts"
    path.write_text(path.read_text() + "192.0.2.1\tmine\n")
    inode = path.stat().st_ino
    files.remove_hosts([("10.1.0.2", "web")])
    localhost, *_, own, mine = path.read_text().splitlines()
    assert [localhost, own, mine] == ["127.0.0.1\tlocalhost", "10.0.0.2\tweb", "192.0.2.1\tmine"]
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [
        ("web", "", "web"),
        ("web", "example.org", "web.example.org web"),
        ("web.example.org", "", "web.example.org web"),
    ],
)
def test_a_container_knows_itself_by_its_short_name_too(hostname, domainname, names):
    assert own_names(hostname, domainname) == names


@pytest.mark.parametrize("there", [True, False])
def test_localhost_has_ipv6_where_the_kernel_has(monkeypatch, there):
    monkeypatch.setattr(sandbox_files, "_kernel_has_ipv6", lambda: there)
    assert ("::1\tlocalhost" in hosts_text([], [])) is there


def test_a_full_disk_is_told_from_other_faults():
    full = failure(OSError(errno.ENOSPC, "No space left on device", "/run/x"), "web")
    assert isinstance(full, OutOfSpace)
    assert "web" in str(full)
    assert "/run/x" in str(full)
    assert isinstance(failure(OSError(errno.EPERM, "no"), "web"), Internal)
