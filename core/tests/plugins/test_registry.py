"""Plugins are found by manifests, loaded when asked for, and a broken one stops nothing else."""

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.config.load import load_config
from linkspan.core.config.schema import PluginsConfig
from linkspan.core.plugins.configuration import check
from linkspan.core.plugins.drivers import DriverUnloadable
from linkspan.core.plugins.hooks import HookStats
from linkspan.core.plugins.listing import with_daemon_state
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.sdk.errors import NotFound, NotUsable

Points = Callable[[], list[metadata.EntryPoint]]
Install = Callable[..., Path]

DRIVER = """\
    import attrs
    from contextlib import asynccontextmanager
    from linkspan.sdk.drivers.volume import VolumeDriver

    @attrs.frozen(kw_only=True)
    class NfsConfig:
        \"\"\"Volumes on an NFS server.

        Attributes:
            server: Host name.
        \"\"\"
        server: str
        retries: int = 3

    class Nfs(VolumeDriver[NfsConfig]):
        config_type = NfsConfig
"""
MANIFEST = """\
    name = "nfs"
    version = "1.1.0"
    summary = "Volumes on an NFS server"
    [[driver]]
    role = "volume"
    name = "nfs"
    features = ["quota"]
"""


def volume_contract() -> str:
    from linkspan.sdk.drivers import volume

    return next(n for n, v in vars(volume).items() if getattr(v, "contract", None) is not None)


def install_nfs(install: Install, manifest: str = MANIFEST, driver: str = DRIVER) -> None:
    install(
        "linkspan-nfs",
        {
            "acme_nfs/__init__.py": "raise SystemExit('a plugin was imported too early')\n",
            "acme_nfs_driver.py": driver.replace("VolumeDriver", volume_contract()),
            "acme_nfs/linkspan-plugin.toml": manifest,
        },
        {
            "linkspan.manifest": {"nfs": "acme_nfs"},
            "linkspan.volume.v1": {"nfs": "acme_nfs_driver:Nfs"},
        },
    )


def test_discovery_imports_no_plugin(install: Install, points: Points) -> None:
    install_nfs(install)
    registry = PluginRegistry(entry_points=points()).discover()
    assert registry.manifests["nfs"].summary == "Volumes on an NFS server"
    assert registry.manifests["nfs"].distribution == "linkspan-nfs 1.1.0"
    assert registry.problems == []
    assert not [name for name in sys.modules if name.startswith("acme_nfs")]


def test_a_driver_is_loaded_when_asked_for(install: Install, points: Points) -> None:
    install_nfs(install)
    registry = PluginRegistry(entry_points=points()).discover()
    driver = registry.driver_class("volume", "nfs")
    assert driver.__name__ == "Nfs"
    assert registry.driver_class("volume", "nfs") is driver


def test_a_missing_driver_is_named_with_the_nearest(install: Install, points: Points) -> None:
    install_nfs(install)
    registry = PluginRegistry(entry_points=points()).discover()
    with pytest.raises(NotFound, match="volume driver 'nsf' is not installed") as caught:
        registry.driver_class("volume", "nsf")
    assert caught.value.help == "did you mean 'nfs'?"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import acme_missing_library",
            "ModuleNotFoundError: No module named 'acme_missing_library'",
        ),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("assert False, 'not here'", "AssertionError: not here"),
        ("Nfs = object()", "is not a subclass of linkspan.sdk.drivers.base.Driver"),
        ("other = 1", "AttributeError"),
    ],
)
def test_a_broken_driver_is_listed_with_its_reason_and_stops_nothing_else(
    install: Install, points: Points, code: str, reason: str
) -> None:
    install_nfs(install, driver=code + "\n")
    install(
        "linkspan-tape",
        {
            "acme_tape/linkspan-plugin.toml": 'name = "tape"\nversion = "1"\n'
            '[[driver]]\nrole = "volume"\nname = "tape"\n',
            "acme_tape_driver.py": DRIVER.replace("VolumeDriver", volume_contract()),
        },
        {
            "linkspan.manifest": {"tape": "acme_tape"},
            "linkspan.volume.v1": {"tape": "acme_tape_driver:Nfs"},
        },
    )
    registry = PluginRegistry(entry_points=points()).discover()
    with pytest.raises(DriverUnloadable) as caught:
        registry.driver_class("volume", "nfs")
    assert reason in caught.value.message
    assert "linkspan-nfs 1.1.0" in caught.value.message
    assert registry.driver_class("volume", "tape").__name__ == "Nfs"
    states = {row.plugin: (row.state, row.reason) for row in registry.listing()}
    assert states["nfs"][0] == "broken"
    assert reason in states["nfs"][1]
    assert states["tape"] == ("ready", "")


def test_a_name_that_two_packages_claim_is_refused(install: Install, points: Points) -> None:
    install_nfs(install)
    install(
        "other-nfs",
        {"acme_other.py": DRIVER.replace("VolumeDriver", volume_contract())},
        {"linkspan.volume.v1": {"nfs": "acme_other:Nfs"}},
    )
    registry = PluginRegistry(entry_points=points()).discover()
    with pytest.raises(
        DriverUnloadable, match=r"claimed by linkspan-nfs 1\.1\.0, other-nfs 1\.1\.0"
    ):
        registry.driver_class("volume", "nfs")


def test_a_disabled_plugin_is_listed_and_never_loaded(install: Install, points: Points) -> None:
    install_nfs(install)
    settings = PluginsConfig(disable=("nfs",))
    registry = PluginRegistry(settings, entry_points=points()).discover()
    with pytest.raises(NotUsable, match=r"disabled by \[plugins\] disable"):
        registry.driver_class("volume", "nfs")
    (row,) = registry.listing()
    assert (row.state, row.role, row.name) == ("disabled", "volume", "nfs")


def test_an_alpha_plugin_must_be_switched_on(install: Install, points: Points) -> None:
    install_nfs(install, MANIFEST.replace("summary", 'stage = "alpha"\n    summary'))
    registry = PluginRegistry(entry_points=points()).discover()
    with pytest.raises(NotUsable, match="alpha; switch it on"):
        registry.driver_class("volume", "nfs")
    on = PluginRegistry(PluginsConfig(enable_alpha=("nfs",)), entry_points=points()).discover()
    assert on.driver_class("volume", "nfs").__name__ == "Nfs"


def test_a_broken_manifest_is_listed_with_file_line_and_column(
    install: Install, points: Points, site: Path
) -> None:
    install_nfs(install, MANIFEST.replace("features", "feature"))
    registry = PluginRegistry(entry_points=points()).discover()
    (row,) = [r for r in registry.listing() if r.state == "broken"]
    place = f"{site / 'acme_nfs/linkspan-plugin.toml'}:7:1"
    assert row.reason == f"{place}: 'driver.0.feature' is not a setting"


def test_a_manifest_that_names_a_driver_without_entry_point_says_so(
    install: Install, points: Points
) -> None:
    install(
        "acme", {"acme_x/linkspan-plugin.toml": MANIFEST}, {"linkspan.manifest": {"x": "acme_x"}}
    )
    (row,) = PluginRegistry(entry_points=points()).discover().listing()
    assert row.state == "broken"
    assert row.reason == "it has no entry point 'nfs' in linkspan.volume.v1"


def test_a_package_without_manifest_is_listed(install: Install, points: Points) -> None:
    install("acme", {"acme_x/__init__.py": ""}, {"linkspan.manifest": {"x": "acme_x"}})
    (row,) = PluginRegistry(entry_points=points()).discover().listing()
    assert (row.plugin, row.state) == ("x", "broken")
    assert row.reason == "package 'acme_x' holds no linkspan-plugin.toml"


def test_the_listing_says_who_chose_a_driver(
    install: Install, points: Points, tmp_path: Path
) -> None:
    install_nfs(install)
    file = tmp_path / "linkspan.toml"
    file.write_text('[volume]\ndriver = "nfs"\n')
    registry = PluginRegistry(entry_points=points()).discover()
    (row,) = registry.listing(load_config([file]))
    assert (row.chosen_by, row.features) == (f"{file}:2", ("quota",))
    assert [r.chosen_by for r in registry.listing(load_config([]))] == [""]


LISTENER = """\
    from linkspan.sdk.hooks import hookimpl

    @hookimpl
    def linkspan_info():
        return {"Acme": "yes"}
"""


def install_listener(install: Install, code: str) -> None:
    install(
        "acme-audit",
        {
            "acme_audit/__init__.py": "",
            "acme_audit/hooks.py": code,
            "acme_audit/linkspan-plugin.toml": 'name = "audit"\nversion = "2"\n'
            'listener = "acme_audit.hooks"\n',
        },
        {"linkspan.manifest": {"audit": "acme_audit"}},
    )


def test_listeners_are_registered_under_their_plugins_name(
    install: Install, points: Points
) -> None:
    install_listener(install, LISTENER)
    runner = PluginRegistry(entry_points=points()).discover().hook_runner()
    assert runner.call("linkspan_info") == [("audit", {"Acme": "yes"})]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "linkspan_info",
            "linkspan_inof",
            "there is no hook 'linkspan_inof'; did you mean 'linkspan_info'?",
        ),
        ("linkspan_info()", "linkspan_info(pidd)", "pidd"),
        ("def linkspan_info", "import acme_nothing\ndef linkspan_info", ""),
        ("@hookimpl\n", "@hookimpl(wrapper=True)\n", "cannot be wrapped"),
        ("return {", "yield {", ""),
    ],
)
def test_a_listener_that_does_not_fit_is_listed_and_left_out(
    install: Install, points: Points, old: str, new: str, reason: str
) -> None:
    code = LISTENER.replace(old, new)
    if "wrapper" in new:
        code = code.replace("return {", "yield  #")
    install_listener(install, code)
    registry = PluginRegistry(entry_points=points()).discover()
    runner = registry.hook_runner()
    if "yield {" in new:  # a generator is not an answer, but harmless: it registers
        return
    assert runner.call("linkspan_info") == []
    (row,) = registry.listing()
    assert (row.role, row.state) == ("listener", "broken")
    assert reason in row.reason


def test_a_driver_fault_names_plugin_version_and_operation(
    install: Install, points: Points
) -> None:
    install_nfs(install)
    registry = PluginRegistry(entry_points=points()).discover()

    class Broken:
        def usage(self) -> None:
            raise KeyError("x")

    with pytest.raises(
        Exception, match=r"plugin 'nfs' 1\.1\.0 failed in volume\.usage: KeyError: 'x'"
    ):
        registry.guard("volume", "nfs", Broken()).usage()
    assert registry.stats("volume", "nfs").faults == 1
    (row,) = registry.listing()
    assert (row.calls, row.faults) == (1, 1)


def places(diagnostics: list[Any], file: Path) -> list[tuple[str, str, str]]:
    return [(d.id, d.place.removeprefix(f"{file}:"), d.headline) for d in diagnostics]


def test_the_whole_config_is_checked_against_the_installed_plugins(
    install: Install, points: Points, tmp_path: Path
) -> None:
    install_nfs(install)
    file = tmp_path / "linkspan.toml"
    file.write_text(
        '[vollume]\n[volume]\ndriver = "nfs"\n[volume.nfs]\nretries = "3"\n[runtime]\ndriver = "gvisor"\n'
        '[plugins]\ndisable = ["nsf"]\n[volume.zfs]\npool = "x"\n'
    )
    registry = PluginRegistry(entry_points=points()).discover()
    found = places(check(load_config([file]), registry), file)
    assert found[:2] == [
        ("LS2001", "1:2", "unknown table 'vollume'"),
        ("LS2101", "9:12", "no plugin named 'nsf' is installed"),
    ]
    assert ("LS2101", "7:10", "runtime driver 'gvisor' is not installed") in found
    assert ("LS2104", "4:9", "volume driver 'nfs' needs 'server'") in found
    assert (
        "LS2010",
        "5:11",
        "'volume.nfs.retries' must be a whole number, found the string \"3\"",
    ) in found
    assert ("LS2101", "10:9", "volume driver 'zfs' is not installed") in found


def test_a_running_daemon_knows_more_of_drivers_and_listeners(
    install: Install, points: Points
) -> None:
    install_nfs(install)
    install_listener(install, LISTENER)
    rows = PluginRegistry(entry_points=points()).discover().listing()
    failure = "linkspan_event: ValueError: boom"
    stats = HookStats(calls=9, failures=5, failures_in_a_row=5, muted=True, last_failure=failure)
    found = with_daemon_state(rows, {("volume", "nfs"): "no mount.nfs"}, {"audit": stats})
    assert [(r.plugin, r.state, r.reason, r.calls) for r in found] == [
        ("audit", "muted", f"failed 5 times in a row, last in {failure}", 9),
        ("nfs", "down", "no mount.nfs", 0),
    ]
