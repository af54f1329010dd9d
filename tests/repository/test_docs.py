"""What the documentation must name: every hook, role, diagnostic and verb."""

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import linkspan.sdk
from linkspan.sdk import diagnostic_ids, drivers
from linkspan.sdk.drivers.base import Driver
from linkspan.sdk.hooks import interceptors, listeners, registration
from linkspan.sdk.stability import ContractInfo
from linkspan.workflows.expressions.functions import FUNCTIONS
from linkspan.workflows.loading import keys
from linkspan.workflows.reader import Keys
from linkspan.workflows.triggers import NAMES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)\s]+)\)")
"""A link to a page of ours, and what it names in it."""


def hooks() -> Iterator[str]:
    """Every hook with its arguments, as the page writes it."""
    for module in (registration, interceptors, listeners):
        for name, function in vars(module).items():
            if name.startswith("linkspan_"):
                yield f"{name}({', '.join(inspect.signature(function).parameters)})"


def contracts() -> Mapping[str, ContractInfo]:
    """Role → its contract."""
    found = {}
    for item in pkgutil.iter_modules(drivers.__path__):
        module = importlib.import_module(f"{drivers.__name__}.{item.name}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Driver) and "contract" in vars(value):
                found[value.contract.role] = value.contract
    return found


def manifests() -> list[dict[str, Any]]:
    """Of the plugins in the box."""
    files = sorted(ROOT.glob("plugins/*/src/linkspan/plugins/*/linkspan-plugin.toml"))
    return [tomllib.loads(path.read_text()) for path in files]


def row(page: str, first: str) -> list[str]:
    """The cells of a table's row by its first one."""
    for line in (REFERENCE / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("|") and cells[0] == f"`{first}`":
            return cells
    pytest.fail(f"docs/reference/{page} has no row for `{first}`")


@pytest.mark.parametrize("hook", list(hooks()))
def test_every_hook_is_on_the_page_with_its_arguments(hook: str) -> None:
    assert row("hooks.md", hook)[1]


def test_the_page_of_hooks_names_no_other() -> None:
    written = re.findall(
        r"^\| `(linkspan_\w+\([^)]*\))`", (REFERENCE / "hooks.md").read_text(), re.M
    )
    assert sorted(written) == sorted(hooks())


@pytest.mark.parametrize("role", list(contracts()))
def test_every_role_is_on_the_page_with_contract_stage_and_drivers(role: str) -> None:
    contract = contracts()[role]
    cells = row("roles.md", role)
    in_the_box = [
        driver["name"]
        for manifest in manifests()
        for driver in manifest.get("driver", ())
        if driver["role"] == role
    ]
    assert cells[1:3] == [str(contract.version), contract.stage.value]
    assert sorted(re.findall(r"`([^`]+)`", cells[3])) == sorted(in_the_box)


@pytest.mark.parametrize("role", list(contracts()))
def test_every_role_has_a_fake_and_a_kit(role: str) -> None:
    kit = importlib.import_module(f"linkspan.sdk.testing.conformance.{role}")
    assert any(name.endswith("Conformance") for name in vars(kit))
    importlib.import_module(f"linkspan.sdk.testing.fakes.{role}")


def test_every_diagnostic_is_on_the_page_with_its_meaning() -> None:
    text = (REFERENCE / "diagnostics.md").read_text()
    written = dict(re.findall(r"^\| (LS\d{4}) \| (.+) \|$", text, re.M))
    assert written == diagnostic_ids.IDS


def test_no_diagnostic_id_is_given_twice() -> None:
    tree = ast.parse(Path(diagnostic_ids.__file__).read_text())
    keys = [
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    ]
    assert len(keys) == len(set(keys)) == len(diagnostic_ids.IDS)


def test_every_verb_is_on_the_page_with_its_settings_and_outputs() -> None:
    verbs = [verb for manifest in manifests() for verb in manifest.get("verb", ())]
    assert verbs
    for verb in verbs:
        _, settings, outputs = row("pipelines.md", verb["name"])
        for setting in verb.get("with", {}):
            assert f"`{setting}`" in settings, f"{verb['name']}: {setting}"
        for output in verb.get("outputs", ()):
            assert f"`{output}`" in outputs, f"{verb['name']}: {output}"


def pages() -> list[Path]:
    """Every page that people read."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted(ROOT.glob("plugins/*/README.md")),
    ]


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings as the site writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(link)
    assert not wrong


def test_every_page_is_found_from_the_first_one() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md", ROOT / "docs/index.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        links = {link.partition("#")[0] for link in LINK.findall(page.read_text())}
        found = {(page.parent / link).resolve() for link in links if link.endswith(".md")}
        ahead += found - seen
    assert {page for page in pages() if "docs" in page.parts} <= seen


def test_every_key_of_the_language_is_on_the_page() -> None:
    text = (REFERENCE / "pipelines.md").read_text()
    tables = [value for value in vars(keys).values() if isinstance(value, Keys)]
    missing = [
        f"{table.table}.{key}"
        for table in tables
        for key in table.known
        if not re.search(rf"[`{{ ]{re.escape(key)}[`:,}}]", text)
    ]
    assert missing == []
    assert tables


def test_every_function_and_trigger_of_the_language_is_on_the_page() -> None:
    text = (REFERENCE / "pipelines.md").read_text()
    assert [name for name in FUNCTIONS if f"{name}(" not in text] == []
    assert [name for name in NAMES if f"`on.{name}`" not in text] == []


def test_every_module_of_the_sdk_is_in_its_table() -> None:
    page = (REFERENCE / "plugins.md").read_text().partition("## What the sdk brings")[2]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for names in rows for name in re.findall(r"`(\w+)`", names)]
    there = [item.name for item in pkgutil.iter_modules(linkspan.sdk.__path__) if not item.ispkg]
    assert sorted(named) == sorted(there)
