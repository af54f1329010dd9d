"""``linkspan stack``: services, networks, secrets and configs of Compose files, as one thing."""

import base64
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import command
from linkspan.core.cli.common import each, filters
from linkspan.core.cli.compose_file import load, pairs, wrong
from linkspan.core.cli.compose_spec import IGNORED, NAMESPACE, Reader, Stack, service_spec
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.list_options import filter_option, no_resolve, no_trunc
from linkspan.core.cli.service import show_tasks
from linkspan.core.cli.service_parts import find_ids
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

_KINDS: Final = ("services", "networks", "secrets", "configs")
_files = click.option(
    "-c",
    "--compose-file",
    "files",
    multiple=True,
    metavar="FILE|-",
    shell_complete=completing.files,
    help="A Compose file",
)


def _of_stack(session: Session, kind: str, name: str) -> list[Any]:
    query = {"filters": {"label": [f"{NAMESPACE}={name}"]}}
    found: list[Any] = session.api.get(f"/{kind}", query) or []
    return found


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    try:
        names = _stacks(Session())
    except Exception:  # noqa: BLE001 - completion is silent when it fails
        return []
    return [name for name in names if name.startswith(incomplete)]


def _stacks(session: Session) -> dict[str, int]:
    """Name → number of services."""
    found: dict[str, int] = {}
    for service in session.api.get("/services", {"filters": {"label": [NAMESPACE]}}):
        name = service["Spec"]["Labels"][NAMESPACE]
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


@command(
    "deploy",
    "Make a stack what its Compose files say: create, change, and with --prune remove.",
    examples=[
        "linkspan stack deploy -c compose.yaml shop",
        "linkspan stack deploy -c compose.yaml -c production.yaml --prune shop",
        "linkspan stack deploy -c compose.yaml --plan shop",
    ],
    more=["linkspan stack services", "linkspan service ps", "linkspan compose"],
)
@click.argument("name", shell_complete=_complete)
@_files
@click.option("--prune", is_flag=True, help="Remove services that the files have no more")
@click.option("--plan", is_flag=True, help="Say what would change, and change nothing")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until all tasks are well")
@click.option("--with-registry-auth", is_flag=True, help="Send our registry logins along")
@click.option("--resolve-image", metavar="WHEN", hidden=True, help="The daemon pins images anyway")
def deploy(
    session: Session,
    name: str,
    files: tuple[str, ...],
    prune: bool,
    plan: bool,
    detach: bool,
    with_registry_auth: bool,
    resolve_image: str | None,
) -> int:
    """Deploy a stack."""
    work = _Deployment(session, name, files, auth=with_registry_auth)
    if plan:
        work.plan(prune=prune)
        return 0
    work.networks()
    work.objects("secrets")
    work.objects("configs")
    if prune:
        work.prune()
    changed = work.services()
    if detach:
        return 0
    from linkspan.core.cli.service_watch import watch

    status = 0
    for identifier, version in changed:
        status = watch(session, identifier, None, since_version=version) or status
    return status


class _Deployment:
    """A stack on its way to what its files say."""

    def __init__(self, session: Session, name: str, files: tuple[str, ...], *, auth: bool) -> None:
        if not files:
            raise click.UsageError("a Compose file is needed: -c compose.yaml")
        self._session, self._api, self._auth = session, session.api, auth
        self._document = load(files)
        if "default" not in self._document["networks"] and any(
            not (body or {}).get("networks") for body in self._document["services"].values()
        ):
            self._document["networks"]["default"] = {}
        self.stack = Stack(name, self._document, files[-1])
        # All of it is read before anything is changed.
        self._specs = {
            key: service_spec(key, body, self.stack)
            for key, body in self._document["services"].items()
        }
        self._there = {s["Spec"]["Name"]: s for s in _of_stack(session, "services", name)}
        ignored = sorted(
            {key for body in self._document["services"].values() for key in body} & set(IGNORED)
        )
        if ignored:
            session.terminal.note(f"no meaning in a cluster, left out: {', '.join(ignored)}")

    def _reader(self, section: str, name: str) -> Reader:
        return Reader(self._document[section][name], f"{self.stack.file}: {section}.{name}")

    def plan(self, *, prune: bool) -> None:
        """Print what would be done."""
        terminal = self._session.terminal
        counts = {"+": 0, "~": 0, "-": 0}

        def say(sign: str, text: str) -> None:
            counts[sign] += 1
            terminal.print(f"{sign} {text}")

        known = {n["Name"] for n in self._api.get("/networks")}
        for key, full in self.stack.networks.items():
            if full not in known and not self._reader("networks", key).values.get("external"):
                say("+", f"network {full}")
        for spec in self._specs.values():
            find_ids(self._api, "network", spec["TaskTemplate"].get("Networks") or ())
            found = self._there.get(spec["Name"])
            if found is None:
                say(
                    "+", f"service {spec['Name']}  {spec['TaskTemplate']['ContainerSpec']['Image']}"
                )
            elif differs(spec, found["Spec"]):
                say("~", f"service {spec['Name']}")
        names = {spec["Name"] for spec in self._specs.values()}
        for old in sorted(set(self._there) - names) if prune else ():
            say("-", f"service {old}")
        added, changed, removed = counts.values()
        terminal.note(f"{added} added, {changed} changed, {removed} removed; nothing is done yet")

    def networks(self) -> None:
        """Create the networks that are not there."""
        known = {network["Name"] for network in self._api.get("/networks")}
        for key, full in self.stack.networks.items():
            network = self._reader("networks", key)
            if network.values.get("external"):
                if full not in known and full not in ("host", "none", "bridge"):
                    raise wrong(
                        network.where,
                        f"there is no network '{full}'",
                        f"linkspan network create {full}",
                    )
                continue
            if full in known:
                continue
            body = {
                "Name": full,
                "Driver": network.text("driver") or self._usual_driver(),
                "Attachable": network.flag("attachable") or False,
                "Internal": network.flag("internal") or False,
                "Options": {
                    k: v or ""
                    for k, v in pairs(network.values.get("driver_opts"), network.where).items()
                },
                "Labels": self.stack.labels(
                    pairs(network.values.get("labels"), network.at("labels"))
                ),
                "IPAM": self._ipam(network.below("ipam")),
            }
            self._api.post("/networks/create", None, body)
            self._session.terminal.print(f"created network {full}")

    def _usual_driver(self) -> str:
        """``overlay`` where the daemon has it, as in Docker; else what joins the tasks of one node."""
        plugins = self._api.get("/info").get("Plugins") or {}
        return "overlay" if "overlay" in (plugins.get("Network") or ()) else "bridge"

    @staticmethod
    def _ipam(ipam: Reader) -> dict[str, Any]:
        pools = ipam.values.get("config")
        found = []
        for item in pools if isinstance(pools, list) else ():
            pool = Reader(item, ipam.at("config"))
            keys = {"Subnet": "subnet", "Gateway": "gateway", "IPRange": "ip_range"}
            found.append({k: pool.text(v) for k, v in keys.items() if pool.text(v)})
        return {"Driver": ipam.text("driver") or "default", "Config": found}

    def objects(self, kind: str) -> None:
        """Create secrets or configs; one that is there is left as it is, for its value cannot change."""
        for key, full in self.stack.objects[kind].items():
            item = self._reader(kind, key)
            if item.values.get("external"):
                continue
            data = self._content(item)
            known = self._api.get(f"/{kind}", {"filters": {"name": [full]}}) or []
            same = [found for found in known if found["Spec"]["Name"] == full]
            if same:
                old = same[0]["Spec"].get("Data")
                if kind == "configs" and old is not None and base64.b64decode(old) != data:
                    raise wrong(
                        item.where,
                        "its content has changed, and a config cannot",
                        "give it another name:, as in name: shop_conf_2",
                    )
                continue
            body = {
                "Name": full,
                "Labels": self.stack.labels(pairs(item.values.get("labels"), item.at("labels"))),
                "Data": base64.b64encode(data).decode(),
            }
            self._api.post(f"/{kind}/create", None, body)
            self._session.terminal.print(f"created {kind[:-1]} {full}")

    @staticmethod
    def _content(item: Reader) -> bytes:
        import os

        if item.values.get("content") is not None:
            return item.text("content").encode()
        variable, file = item.text("environment"), item.text("file")
        if variable:
            if variable not in os.environ:
                raise wrong(item.at("environment"), f"the variable {variable} is not set")
            return os.environ[variable].encode()
        if not file:
            raise wrong(item.where, "it says neither file, environment, content nor external")
        try:
            return (Path(item.text("x-base")) / Path(file).expanduser()).read_bytes()
        except OSError as exc:
            raise wrong(item.at("file"), f"cannot read '{file}': {exc.strerror}") from exc

    def prune(self) -> None:
        """Remove services that the files have no more."""
        names = {spec["Name"] for spec in self._specs.values()}
        for name in sorted(set(self._there) - names):
            self._api.delete(f"/services/{self._there[name]['ID']}")
            self._session.terminal.print(f"removed service {name}")

    def services(self) -> list[tuple[str, int | None]]:
        """Create and change services; the id of each, and its version before, None for new ones."""
        from linkspan.core.cli.credentials import registry_auth

        changed: list[tuple[str, int | None]] = []
        for spec in self._specs.values():
            container = spec["TaskTemplate"]["ContainerSpec"]
            find_ids(self._api, "secret", container.get("Secrets") or ())
            find_ids(self._api, "config", container.get("Configs") or ())
            find_ids(self._api, "network", spec["TaskTemplate"].get("Networks") or ())
            image = container["Image"]
            headers = {"X-Registry-Auth": registry_auth(image)} if self._auth else {}
            found = self._there.get(spec["Name"])
            if found is None:
                with self._api.open(
                    "POST", "/services/create", None, spec, headers=headers
                ) as answer:
                    changed.append((answer.json()["ID"], None))
                self._session.terminal.print(f"created service {spec['Name']}")
                continue
            if not differs(spec, found["Spec"]):
                self._session.terminal.print(f"unchanged service {spec['Name']}")
                continue
            version = found["Version"]["Index"]
            force = (found["Spec"].get("TaskTemplate") or {}).get("ForceUpdate")
            if force:
                spec["TaskTemplate"]["ForceUpdate"] = force
            path = f"/services/{found['ID']}/update"
            with self._api.open("POST", path, {"version": version}, spec, headers=headers):
                pass
            changed.append((found["ID"], version))
            self._session.terminal.print(f"updated service {spec['Name']}")
        return changed


def differs(wanted: Any, found: Any) -> bool:
    """Whether something that is wanted is not so; what the daemon has added does not count."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return bool(wanted)
        return any(differs(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return bool(wanted) or bool(found)
        return any(differs(a, b) for a, b in zip(wanted, found, strict=True))
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted != found and wanted != found.partition("@")[0]  # the daemon pins images
    return bool(wanted != found) and not (not wanted and not found)


@command("ls", "List stacks.", examples=["linkspan stack ls"], more=["linkspan stack services"])
def ls(session: Session) -> None:
    """List stacks."""
    records = [
        {"Name": name, "Services": str(count), "Orchestrator": "Swarm"}
        for name, count in _stacks(session).items()
    ]
    session.rows(
        records,
        lambda record: record,
        lambda record: [record["Name"], record["Services"]],
        ["NAME", "SERVICES"],
        ids="Name",
        docker="{{.Name}}\t{{.Services}}",
    )


def _need(found: list[Any], name: str) -> list[Any]:
    if not found:
        raise Failure(f"nothing found in stack: {name}", helps=["linkspan stack ls"])
    return found


@command(
    "services",
    "List the services of a stack.",
    examples=["linkspan stack services shop"],
    more=["linkspan service ls"],
)
@click.argument("name", shell_complete=_complete)
@filter_option("service")
def services(session: Session, name: str, filter_: tuple[str, ...]) -> None:
    """List services."""
    from linkspan.core.cli.service import show_services

    asked = filters(filter_) or {}
    asked.setdefault("label", []).append(f"{NAMESPACE}={name}")
    records = session.api.get("/services", {"status": True, "filters": asked})
    show_services(session, _need(records, name))


@command(
    "ps",
    "List the tasks of a stack.",
    examples=["linkspan stack ps shop", "linkspan stack ps --filter desired-state=running shop"],
    more=["linkspan service ps"],
)
@click.argument("name", shell_complete=_complete)
@filter_option("task")
@no_trunc
@no_resolve
def ps(
    session: Session, name: str, filter_: tuple[str, ...], no_trunc: bool, no_resolve: bool
) -> None:
    """List tasks."""
    found = _need(_of_stack(session, "services", name), name)
    names = {service["ID"]: service["Spec"]["Name"] for service in found}
    asked = {**(filters(filter_) or {}), "service": list(names)}
    tasks = session.api.get("/tasks", {"filters": asked})
    show_tasks(session, tasks, names, no_trunc=no_trunc, resolve=not no_resolve)


@command(
    "rm",
    "Remove stacks: their services, secrets, configs and networks. Volumes stay.",
    examples=["linkspan stack rm shop"],
    more=["linkspan stack deploy"],
)
@click.argument("names", nargs=-1, required=True, shell_complete=_complete)
@click.option(
    "-d", "--detach/--no-detach", default=True, help="Do not wait for the tasks (default)"
)
def rm(session: Session, names: tuple[str, ...], detach: bool) -> int:
    """Remove stacks."""

    def remove(name: str) -> list[str]:
        said = []
        found = {kind: _of_stack(session, kind, name) for kind in _KINDS}
        _need([item for items in found.values() for item in items], name)
        for kind in _KINDS:
            for item in found[kind]:
                identifier = item.get("ID") or item["Id"]
                title = item.get("Name") or item["Spec"]["Name"]
                if kind == "networks":
                    _remove_network(session, identifier)
                else:
                    session.api.delete(f"/{kind}/{segment(identifier)}")
                said.append(f"removed {kind[:-1]} {title}")
        if not detach:
            _await_end(session, [service["ID"] for service in found["services"]])
        return said

    return each(session, names, remove)


def _await_end(session: Session, services: list[str]) -> None:
    """Return when no task of these services is left."""
    import time

    while services and session.api.get("/tasks", {"filters": {"service": services}}):
        time.sleep(_POLL_S)


_POLL_S: Final = 0.2


_NETWORK_PATIENCE_S: Final = 30.0


def _remove_network(session: Session, identifier: str) -> None:
    """Remove a network as soon as the last task of the stack has left it."""
    import time

    from linkspan.core.client.errors import ApiError

    end = time.monotonic() + _NETWORK_PATIENCE_S
    while True:
        try:
            session.api.delete(f"/networks/{segment(identifier)}")
        except ApiError as exc:
            if exc.status not in (403, 409) or time.monotonic() > end:
                raise
            time.sleep(_POLL_S)
        else:
            return


@command(
    "config",
    "Print Compose files as one, with their variables filled in.",
    examples=["linkspan stack config -c compose.yaml -c production.yaml"],
    more=["linkspan stack deploy"],
)
@_files
def config(session: Session, files: tuple[str, ...]) -> None:
    """Print the merged files."""
    import yaml

    if not files:
        raise click.UsageError("a Compose file is needed: -c compose.yaml")
    document = load(files)
    for section in document.values():
        for body in section.values():
            body.pop("x-base", None)
    shown = {key: value for key, value in document.items() if value}
    if session.format in ("json", "jsonl"):
        session.document(shown)
        return
    session.terminal.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
