"""``use``: which driver plays which role in a run of the pipeline."""

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.model import Choice
from linkspan.workflows.parse import Field


def read_use(scene: Scene, field: Field | None) -> dict[str, Choice]:
    """What the file chooses, or whoever starts it in its place; the scene knows from then on."""
    written = {} if field is None else scene.r.names(field.value, "'use'")
    chosen = {
        role: Choice(role=role, driver=driver)
        for role, driver in scene.files.use.items()
        if role not in written
    }
    for role, each in written.items():
        choice = _choice(scene, role, each)
        if choice is not None:
            chosen[role] = choice
    scene.use = {**scene.use, **chosen}
    return chosen


def _choice(scene: Scene, role: str, field: Field) -> Choice | None:
    r, verbs = scene.r, scene.verbs
    driver = r.text(field.value, f"the driver of '{role}'")
    if verbs.roles and role not in verbs.roles:
        near = did_you_mean(role, verbs.roles)
        helps = [f"did you mean '{near}'?" if near else f"roles: {', '.join(verbs.roles)}"]
        r.fault("LS1407", f"no plugin plays the role '{role}'", field.key, helps=helps, fix=near)
        return None
    if role in scene.files.use:
        return Choice(role=role, driver=scene.files.use[role], span=field.value.span)
    if driver is None:
        return None
    check_driver(scene, role, driver, field)
    return Choice(role=role, driver=driver, span=field.value.span)


def check_driver(scene: Scene, role: str, driver: str, field: Field) -> None:
    """LS1407 if nothing installed plays a role under a name, LS1405 if it speaks another version of it."""
    r, verbs = scene.r, scene.verbs
    if not verbs.roles:
        return
    found = verbs.driver(role, driver)
    if found is None:
        names = verbs.drivers_of(role)
        near = did_you_mean(driver, names)
        helps = [f"did you mean '{near}'?"] if near else [f"drivers here: {', '.join(names)}"]
        helps.append(f"pip install linkspan-{driver}")
        r.fault(
            "LS1407",
            f"no installed plugin plays {role} as '{driver}'",
            field.value,
            "chosen here",
            helps=helps,
            fix=near,
        )
        return
    wanted = verbs.contract(role)
    if wanted is not None and found.contract != wanted:
        others = [name for name in verbs.drivers_of(role) if name != driver]
        helps = [f"pip install -U {found.distribution or found.plugin}"]
        helps += [f"or keep going without it:  --use {role}={others[0]}"] if others else []
        r.fault(
            "LS1405",
            f"plugin '{found.provider}' speaks {role} API {found.contract}, "
            f"this Linkspan needs {wanted}",
            field.value,
            "chosen here",
            helps=helps,
        )
