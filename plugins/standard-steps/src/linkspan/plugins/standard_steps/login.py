"""``login``: credentials for a registry, checked and kept for what pulls and pushes after it."""

from collections.abc import Mapping
from typing import Any

from linkspan.plugins.standard_steps.base import StandardStep
from linkspan.sdk.drivers.registry import Registry
from linkspan.sdk.drivers.step import StepContext
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.model.step import StepChange, StepIntent, StepOutcome, StepPlan


class LoginStep(StandardStep):
    """Keeps them where the registry client looks, as ``docker login`` does.

    A password that comes from a secret is masked in the journal; one that is written out in the pipeline is
    in it as it is in the pipeline.
    """

    def registry(self, intent: StepIntent) -> Registry[Any]:
        """Who keeps the credentials."""
        found: Registry[Any] = self.driver("registry", intent)
        return found

    async def plan(self, intent: StepIntent) -> StepPlan:
        """Whether it replaces other credentials: those cannot be brought back."""
        server = _server(intent)
        known = await self.registry(intent).remembers(server)
        change = StepChange(
            action="change" if known else "create", what=f"credentials for {server}"
        )
        return StepPlan(changes=(change,), undo={"known": known})

    async def apply(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Ask the registry, then keep them.

        Raises:
            Unauthenticated: The registry does not take them; nothing is kept.
            Unavailable: It cannot be reached.
        If cancelled: they are kept or not.
        """
        server = _server(intent)
        credentials = Credentials(
            username=intent.settings["username"],
            password=intent.settings["password"],
            server_address=server,
        )
        token = await self.registry(intent).login(credentials)
        if token:
            credentials = Credentials(
                username=credentials.username, identity_token=token, server_address=server
            )
        await self.registry(intent).remember(credentials)
        context.log(f"logged in at {server} as {credentials.username}")
        return {"registry": server}

    async def observe(self, intent: StepIntent) -> StepOutcome:
        """Which credentials are kept is nobody's business: it is done again."""
        return StepOutcome(applied=False, detail="checked and kept again")

    async def undo(self, intent: StepIntent, context: StepContext) -> Mapping[str, Any]:
        """Forget them, unless there were others before: then the newer ones stay."""
        server = _server(intent)
        if intent.undo["known"]:
            return {"detail": f"the credentials for {server} stay; the ones before are not known"}
        await self.registry(intent).forget(server)
        return {"detail": f"the credentials for {server} are forgotten"}


def _server(intent: StepIntent) -> str:
    text: str = intent.settings["registry"]
    server = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    if not server or "/" in server or any(char.isspace() for char in server):
        raise InvalidArgument(
            f"'{text}' is not a registry's host", help="registry: r.example.test:5000"
        )
    return server
