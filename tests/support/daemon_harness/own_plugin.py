"""Plugins that tests install: folders of the module path."""

from collections.abc import Mapping
from pathlib import Path


def install_verb(
    folder: Path,
    name: str,
    target: str,
    files: Mapping[str, str],
    *,
    version: str,
    manifest: str = "",
) -> None:
    """Write a plugin ``acme-NAME`` with one verb ``acme/NAME``.

    Args:
        folder: Is to be in the module path.
        target: ``MODULE:CLASS`` of the verb's driver, in the plugin's package.
        files: Of the package: path → text.
        manifest: Its manifest's lines after those that each plugin has: what else there is of the verb.
    """
    package, information = folder / f"acme_{name}", folder / f"acme_{name}-{version}.dist-info"
    for made in (package, information):
        made.mkdir(parents=True)
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: {version}\n"
    )
    (information / "entry_points.txt").write_text(
        f"[linkspan.manifest]\nacme-{name} = acme_{name}\n\n"
        f"[linkspan.step.v1]\nacme/{name} = acme_{name}.{target}\n"
    )
    (package / "__init__.py").touch()
    (package / "linkspan-plugin.toml").write_text(
        f'name = "acme-{name}"\nversion = "{version}"\nsummary = "Of a test"\nstage = "beta"\n'
        f"{_LISTENER.format(name=name) if 'hooks.py' in files else ''}\n"
        f'[[driver]]\nrole = "step"\nname = "acme/{name}"\ncontract = 1\n\n'
        f'[[verb]]\nname = "acme/{name}"\nsummary = "Of a test"\n\n{manifest}'
    )
    for path, text in files.items():
        (package / path).write_text(text)


_LISTENER = 'listener = "acme_{name}.hooks"\n'
