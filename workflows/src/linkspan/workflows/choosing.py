"""Drivers that a pipeline chooses (``use``), or whoever starts it (``--use``): are they there?

Of some roles the daemon has every installed driver open, of others just its own; a run can only use what
is open, and is refused before it begins if that is something else.
"""

from collections.abc import Iterator, Mapping

from linkspan.sdk.diagnostics import Diagnostic, Label, did_you_mean
from linkspan.sdk.errors import InvalidArgument, LinkspanError
from linkspan.sdk.host import Host
from linkspan.workflows.model import Choice, Workflow
from linkspan.workflows.units import Frame
from linkspan.workflows.verbs import Verbs


def check_choices(use: Mapping[str, str], verbs: Verbs) -> None:
    """Refuse what no installed plugin can play.

    Raises:
        InvalidArgument: With the nearest name; code ``invalid_use``.
    """
    for role, driver in use.items():
        if not verbs.roles:
            return
        names = verbs.drivers_of(role) if role in verbs.roles else []
        found = verbs.driver(role, driver) if names else None
        if not names:
            near = did_you_mean(role, verbs.roles)
            words = f"no plugin plays the role '{role}'"
            hint = f"did you mean '{near}'?" if near else f"roles: {', '.join(verbs.roles)}"
        elif found is None:
            near = did_you_mean(driver, names)
            words = f"no installed plugin plays {role} as '{driver}'"
            hint = f"did you mean '{near}'?" if near else f"drivers here: {', '.join(names)}"
        elif verbs.contract(role) not in (None, found.contract):
            words = f"plugin '{found.provider}' speaks {role} API {found.contract}, this Linkspan needs "
            words += str(verbs.contract(role))
            hint = f"pip install -U {found.distribution or found.plugin}"
        else:
            continue
        raise InvalidArgument(f"--use {role}={driver}: {words}", code="invalid_use", help=hint)


def not_open(host: Host, workflow: Workflow) -> list[Diagnostic]:
    """A fault (LS1410) for each driver that a pipeline, or one that it calls, chooses in vain."""
    found: dict[tuple[str, str], Diagnostic] = {}
    for owner in _workflows(workflow):
        for choice in owner.use.values():
            fault = _fault(host, owner, choice)
            if fault is not None:
                found.setdefault((choice.role, choice.driver), fault)
    return list(found.values())


def _workflows(workflow: Workflow) -> Iterator[Workflow]:
    yield workflow
    for unit in Frame(workflow).everything():
        if unit.inner is not None:
            yield unit.inner.workflow


def _fault(host: Host, owner: Workflow, choice: Choice) -> Diagnostic | None:
    role, driver = choice.role, choice.driver
    try:
        host.driver(role, driver)
    except LinkspanError as error:
        why = error.message
    else:
        return None
    own = host.daemon.drivers.get(role, "")
    helps = [f'in the daemon\'s config:  {role} = {{driver = "{driver}"}}']
    helps += [f"or with what it has:  --use {role}={own}"] if own and own != driver else []
    return Diagnostic(
        id="LS1410",
        headline=f"this daemon does not play {role} as '{driver}'",
        file=owner.file,
        source=owner.text,
        primary=None if choice.span is None else Label(span=choice.span, text="chosen here"),
        notes=(why,),
        helps=(*helps, "found in preflight: nothing has been started"),
    )
