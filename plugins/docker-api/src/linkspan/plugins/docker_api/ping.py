"""/_ping: what every client asks first."""

from linkspan.plugins.docker_api.swarm import swarm_state
from linkspan.sdk.host import Host
from linkspan.sdk.http import Request, Response


class PingRoutes:
    """A sign of life."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def ping(self, _: Request) -> Response:
        """GET and HEAD /_ping: what every command of the CLI asks first."""
        self._host.driver("runtime").stir()  # what the command starts next should find it warm
        swarm = await swarm_state(self._host)
        state = swarm["LocalNodeState"]
        return Response(
            body=b"OK",
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                # 1 keeps the CLI on the classic builder; 2 would mean BuildKit.
                "Builder-Version": "1",
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Pragma": "no-cache",
                "Swarm": "active/manager" if state == "active" else state,
            },
        )
