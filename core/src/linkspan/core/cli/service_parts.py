"""Lists in a service's specification: one option each to create, a pair of them to change.

``--dns 1.1.1.1`` at ``service create`` is ``--dns-add 1.1.1.1`` and ``--dns-rm 1.1.1.1`` at ``service update``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

from linkspan.core.cli.common import bad_value, complete_network
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.runvalues import ulimit
from linkspan.core.client.short import Api

F = TypeVar("F", bound=Callable[..., Any])
_CONTAINER: Final = ("TaskTemplate", "ContainerSpec")
_RESERVED: Final = ("TaskTemplate", "Resources", "Reservations")


class Part(NamedTuple):
    """One list.

    Attributes:
        name: ``dns``: of the option.
        path: Keys in the ServiceSpec.
        read: An item of the list from what was written.
        name_of: What ``-rm`` has to name, of an item.
        metavar: What stands for the value in the help.
        help: One line.
        mapping: The list is a mapping of KEY=VALUE.
    """

    name: str
    path: tuple[str, ...]
    read: Callable[[str], Any]
    name_of: Callable[[Any], str]
    metavar: str
    help: str
    mapping: bool = False


def _text(text: str) -> str:
    return text


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise bad_value(f"'{text}' has no key", "KEY=VALUE")
    return key, value


def _host(text: str) -> str:
    name, colon, address = text.partition(":")
    if not colon or not name or not address:
        raise bad_value(f"'{text}' is not of the form NAME:IP", "--host")
    return f"{address} {name}"


def _spread(text: str) -> dict[str, Any]:
    kind, equals, value = text.partition("=")
    if kind != "spread" or not equals or not value:
        raise bad_value(f"'{text}' is not of the form spread=node.labels.NAME", "--placement-pref")
    return {"Spread": {"SpreadDescriptor": value}}


def _resource(text: str) -> dict[str, Any]:
    kind, equals, number = text.partition("=")
    if not kind or not equals or not (number.isdecimal() and number.isascii()):
        raise bad_value(f"'{text}' is not of the form KIND=NUMBER", "--generic-resource")
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": int(number)}}


def _kind(item: dict[str, Any]) -> str:
    kind: str = next(iter(item.values()))["Kind"]
    return kind


def _network(text: str) -> dict[str, Any]:
    if "=" not in text:
        return {"Target": text}
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key == "name":
            found["Target"] = value
        elif key == "alias":
            found.setdefault("Aliases", []).append(value)
        elif key == "driver-opt":
            option, _, setting = value.partition("=")
            found.setdefault("DriverOpts", {})[option] = setting
        else:
            raise bad_value(f"unknown key '{key}' in '{text}'", "--network")
    if not found.get("Target"):
        raise bad_value(f"'{text}' has no name=", "--network")
    return found


def _object(kind: str) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        """``key``, or ``source=key,target=name,uid=0,gid=0,mode=0400``."""
        given = dict(_pair(part) for part in text.split(",")) if "=" in text else {"source": text}
        unknown = set(given) - {"source", "src", "target", "uid", "gid", "mode"}
        source = given.get("source") or given.get("src")
        if unknown or not source:
            reason = (
                f"unknown key '{min(unknown)}' in '{text}'"
                if unknown
                else f"'{text}' has no source"
            )
            raise bad_value(reason, f"--{kind.lower()}")
        mode = given.get("mode", "0444")
        if not mode.isdigit() or set(mode) & set("89"):
            raise bad_value(f"'{mode}' is no file mode; write 0400", f"--{kind.lower()}")
        usual = source if kind == "Secret" else f"/{source}"
        file = {
            "Name": given.get("target", usual),
            "UID": given.get("uid", "0"),
            "GID": given.get("gid", "0"),
            "Mode": int(mode, 8),
        }
        return {"File": file, f"{kind}Name": source}

    return read


PARTS: Final = (
    Part(
        *("container-label", (*_CONTAINER, "Labels"), _pair, _text, "KEY=VALUE"),
        *("A label of its containers", True),
    ),
    Part(
        *("constraint", ("TaskTemplate", "Placement", "Constraints"), _text, _text, "EXPR"),
        "Where tasks may run: node.labels.zone==a",
    ),
    Part(
        *("placement-pref", ("TaskTemplate", "Placement", "Preferences"), _spread),
        *(lambda item: f"spread={item['Spread']['SpreadDescriptor']}", "spread=LABEL"),
        "Spread tasks over the values of a label",
    ),
    Part(
        *("generic-resource", (*_RESERVED, "GenericResources"), _resource, _kind, "KIND=NUMBER"),
        "What a node must have free: gpu=1",
    ),
    Part(
        *("network", ("TaskTemplate", "Networks"), _network, lambda item: item["Target"], "NAME"),
        "A network; name=…,alias=…",
    ),
    Part(
        *("secret", (*_CONTAINER, "Secrets"), _object("Secret")),
        *(lambda item: item["SecretName"], "NAME", "A secret; source=…,target=…,mode=…"),
    ),
    Part(
        *("config", (*_CONTAINER, "Configs"), _object("Config")),
        *(lambda item: item["ConfigName"], "NAME", "A config; source=…,target=…,mode=…"),
    ),
    Part(*("dns", (*_CONTAINER, "DNSConfig", "Nameservers"), _text, _text, "IP"), "A name server"),
    Part(
        *("dns-search", (*_CONTAINER, "DNSConfig", "Search"), _text, _text, "DOMAIN"),
        "A search domain",
    ),
    Part(
        *("dns-option", (*_CONTAINER, "DNSConfig", "Options"), _text, _text, "OPTION"),
        "For the resolver",
    ),
    Part(
        *("host", (*_CONTAINER, "Hosts"), _host, lambda item: item.partition(" ")[2], "NAME:IP"),
        "A line for /etc/hosts",
    ),
    Part(*("group", (*_CONTAINER, "Groups"), _text, _text, "GROUP"), "A further group"),
    Part(
        *("sysctl", (*_CONTAINER, "Sysctls"), _pair, _text, "KEY=VALUE"),
        *("A kernel setting of its namespaces", True),
    ),
    Part(
        *("ulimit", (*_CONTAINER, "Ulimits"), ulimit, lambda item: item["Name"]),
        *("NAME=SOFT[:HARD]", "A resource limit"),
    ),
)


def create_options(function: F) -> F:
    """``--dns`` and so on."""
    for part in reversed(PARTS):
        shown = complete_network if part.name == "network" else None
        function = click.option(
            f"--{part.name}",
            _dest(part, "add"),
            multiple=True,
            metavar=part.metavar,
            help=part.help,
            shell_complete=shown,
        )(function)
    return function


def update_options(function: F) -> F:
    """``--dns-add``, ``--dns-rm`` and so on."""
    for part in reversed(PARTS):
        for verb, metavar, text in (
            (
                "rm",
                part.metavar.partition("=")[0].partition(":")[0],
                f"Remove: {_lower(part.help)}",
            ),
            ("add", part.metavar, f"Add: {_lower(part.help)}"),
        ):
            function = click.option(
                f"--{part.name}-{verb}",
                _dest(part, verb),
                multiple=True,
                metavar=metavar,
                help=text,
            )(function)
    return function


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _dest(part: Part, verb: str) -> str:
    return f"part_{part.name.replace('-', '_')}_{verb}"


def add_parts(api: Api, spec: dict[str, Any], options: dict[str, Any]) -> None:
    """Write what was given for a new service into its ServiceSpec."""
    _change(api, spec, options, removes=False)


def change_parts(api: Api, spec: dict[str, Any], options: dict[str, Any]) -> None:
    """Remove from, then add to a ServiceSpec what was given.

    Raises:
        Failure: There is no secret or config of a name.
    """
    _change(api, spec, options, removes=True)


def _change(api: Api, spec: dict[str, Any], options: dict[str, Any], *, removes: bool) -> None:
    for part in PARTS:
        added = [part.read(text) for text in options[_dest(part, "add")]]
        gone = set(options[_dest(part, "rm")]) if removes else set()
        if not added and not gone:
            continue
        place = spec
        for key in part.path[:-1]:
            place = place.setdefault(key, {})
        key = part.path[-1]
        if part.mapping:
            kept = {k: v for k, v in (place.get(key) or {}).items() if k not in gone}
            place[key] = {**kept, **dict(added)}
            continue
        find_ids(api, part.name, added)
        if part.name == "network":
            gone |= {network_id(api, name) for name in gone}
        gone |= {part.name_of(item) for item in added}
        place[key] = [i for i in place.get(key) or () if part.name_of(i) not in gone] + added


def find_ids(api: Api, kind: str, references: Sequence[Any]) -> None:
    """Fill in the ids of references to secrets, configs and networks, which have names.

    Raises:
        Failure: There is no secret or config of a name. What is said of networks is the daemon's to say.
    """
    if kind == "network":
        for reference in references:
            reference["Target"] = network_id(api, reference["Target"])
    if kind not in ("secret", "config"):
        return
    title = kind.title()
    for reference in references:
        name = reference[f"{title}Name"]
        found = api.get(f"/{kind}s", {"filters": {"name": [name]}}) or []
        exact = [item["ID"] for item in found if item["Spec"]["Name"] == name]
        if not exact:
            raise Failure(
                f"there is no {kind} '{name}'", helps=[f"linkspan {kind} create {name} FILE"]
            )
        reference[f"{title}ID"] = exact[0]


def network_id(api: Api, name: str) -> str:
    """The id of a network, as services keep it; the name itself if there is none."""
    found = api.get("/networks", {"filters": {"name": [name]}}) or []
    return next((item["Id"] for item in found if name in (item["Name"], item["Id"])), name)
