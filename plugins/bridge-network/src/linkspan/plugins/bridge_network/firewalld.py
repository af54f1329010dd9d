"""Letting our packets through firewalld, which rejects what comes from an interface that it does not know.

As Docker does with a zone ``docker``: there is a zone ``linkspan`` that accepts everything, with the bridges in
it, and a policy that lets packets from everywhere into the zone. What reaches a container our own table decides.

Zone and policy are made once and lie in firewalld's configuration, where people can build on them. The bridges in
it are its state at run time only, and lost whenever it loads its rules anew. It does that in the table
``inet firewalld``, and the kernel tells us; so no connection to the bus is kept, and nothing at all is done where
there is no such table.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import trio

log = logging.getLogger(__name__)

TABLE = "firewalld"
"""Of family inet; where it is, firewalld runs."""
ZONE, POLICY = "linkspan", "linkspan-forward"
_SERVICE = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_PATIENCE_S = 20.0
"""firewalld does one thing at a time, and loading its rules takes seconds on a busy machine."""
_ZONE_SETTINGS = {
    "version": ("s", "1.0"),
    "short": ("s", ZONE),
    "description": ("s", "Bridges of linkspan's container networks; linkspan's own table filters"),
    "target": ("s", "ACCEPT"),
}
_POLICY_SETTINGS = {
    "version": ("s", "1.0"),
    "short": ("s", POLICY),
    "description": ("s", "To containers of linkspan; linkspan's own table filters"),
    "ingress_zones": ("as", ["ANY"]),
    "egress_zones": ("as", [ZONE]),
    "target": ("s", "ACCEPT"),
}


class _Refused(Exception):
    """firewalld, or the bus, answered with an error: its name and what it says."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(f"{name}: {said}")
        self.name = name
        self.code = said.partition(":")[0]


class Firewalld:
    """See the module. Nothing here raises: networks work as far as firewalld lets them."""

    def __init__(self) -> None:
        self._running = False
        self._turn = trio.Lock()  # while the zone is made nobody can use it
        self._zone_made = False
        self._reported: set[str] = set()

    async def ensure(self, bridges: Callable[[], Iterable[str]], *, running: bool) -> None:
        """Have the bridges in the zone.

        Args:
            bridges: Asked when it is our turn: others may come or go meanwhile.
            running: Whether firewalld's table is there.
        """
        self._running = running
        if running:
            async with self._turn:
                await trio.to_thread.run_sync(self._guarded, self._ensure, list(bridges()))

    async def remove(self, bridges: Iterable[str]) -> None:
        """Take bridges out of the zone."""
        if self._running:
            async with self._turn:
                await trio.to_thread.run_sync(self._guarded, self._remove, list(bridges))

    # In a thread from here on.

    def _guarded(self, work: "Callable[[_Bus, list[str]], None]", bridges: list[str]) -> None:
        try:
            with _Bus() as bus:
                if bus.has_firewalld():
                    work(bus, bridges)
        except (_Refused, OSError) as error:
            self._report(f"firewalld does not do as told: {error}")

    def _ensure(self, bus: "_Bus", bridges: list[str]) -> None:
        if not self._make_zone(bus):
            self._report(f"firewalld does not take the zone {ZONE}: containers may not reach out")
            return
        there = bus.ask("zone", "getInterfaces", "s", ZONE)
        for bridge in bridges:
            if bridge in there:
                continue
            other = bus.ask("zone", "getZoneOfInterface", "s", bridge)
            if other:  # somebody has decided that
                log.info(
                    "a bridge is in another zone of firewalld",
                    extra={"zone": other, "bridge": bridge},
                )
                continue
            with _unless("ZONE_ALREADY_SET", "ALREADY_ENABLED"):
                bus.ask("zone", "addInterface", "ss", ZONE, bridge)

    def _make_zone(self, bus: "_Bus") -> bool:
        """Make zone and policy, if they are not there; whether the zone is there then."""
        if ZONE in bus.ask("zone", "getZones"):
            self._zone_made = False
            return True
        if self._zone_made:  # and it is not taken: loading all rules again and again would not help
            return False
        self._zone_made = True
        with _unless("NAME_CONFLICT"):
            bus.ask("config", "addZone2", "sa{sv}", ZONE, _ZONE_SETTINGS)
        # Firewalls before 0.9 have no policies, and let in what a zone accepts.
        with _unless("NAME_CONFLICT", "org.freedesktop.DBus.Error.UnknownMethod"):
            bus.ask("config", "addPolicy", "sa{sv}", POLICY, _POLICY_SETTINGS)
        bus.ask("", "reload")
        log.info("firewalld has the zone %s now", ZONE)
        return ZONE in bus.ask("zone", "getZones")

    def _remove(self, bus: "_Bus", bridges: list[str]) -> None:
        for bridge in bridges:
            with _unless("UNKNOWN_INTERFACE", "ZONE_CONFLICT", "INVALID_ZONE"):
                bus.ask("zone", "removeInterface", "ss", ZONE, bridge)

    def _report(self, what: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            log.warning("%s", what)


@contextmanager
def _unless(*codes: str) -> Iterator[None]:
    """Pass over answers of firewalld with these codes, and errors of these names."""
    try:
        yield
    except _Refused as error:
        if not {error.code, error.name} & set(codes):
            raise


class _Bus:
    """A connection to the system's bus, for a few questions. Blocks."""

    def __enter__(self) -> Self:
        # Here, so that machines without firewalld do without it.
        from jeepney.io.blocking import open_dbus_connection

        self._connection = open_dbus_connection("SYSTEM", auth_timeout=_PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def has_firewalld(self) -> bool:
        """Whether it is there; asking it itself would start it."""
        from jeepney import message_bus

        return bool(self._send(message_bus.NameHasOwner(_SERVICE)))

    def ask(
        self, interface: str, method: str, signature: str | None = None, *arguments: Any
    ) -> Any:
        """Call a method of firewalld; return its first result.

        Args:
            interface: ``zone``, ``config``, or empty.
        """
        from jeepney import DBusAddress, new_method_call

        path = f"{_PATH}/config" if interface == "config" else _PATH
        name = f"{_SERVICE}.{interface}" if interface else _SERVICE
        return self._send(
            new_method_call(DBusAddress(path, _SERVICE, name), method, signature, arguments)
        )

    def _send(self, message: Any) -> Any:
        from jeepney import HeaderFields, MessageType

        answer = self._connection.send_and_get_reply(message, timeout=_PATIENCE_S)
        if answer.header.message_type == MessageType.error:
            name = answer.header.fields.get(HeaderFields.error_name, "")
            raise _Refused(name, str(answer.body[0]) if answer.body else "")
        return answer.body[0] if answer.body else None
