"""Routes of the Engine API that are not served: each answers 501 and says so by name.

An empty list is the truth where nothing of a kind can exist.
"""

from collections.abc import Awaitable, Callable

from linkspan.plugins.docker_api.filters import read_filters
from linkspan.plugins.docker_api.routing import DockerRouter
from linkspan.sdk.errors import NotFound, Unsupported
from linkspan.sdk.http import Answer, Request, Response, json_response

NOT_SERVED = {
    "Docker's own plugins (Linkspan's are Python packages)": (
        "GET /plugins/privileges",
        "POST /plugins/pull",
        "POST /plugins/create",
    ),
    "updating a volume": ("PUT /volumes/{name}",),
}
OF_A_PLUGIN = (
    "GET /plugins/{name:path}/json",
    "DELETE /plugins/{name:path}",
    "POST /plugins/{name:path}/enable",
    "POST /plugins/{name:path}/disable",
    "POST /plugins/{name:path}/upgrade",
    "POST /plugins/{name:path}/push",
    "POST /plugins/{name:path}/set",
)
"""404, whatever the name: none of Docker's plugins can be installed."""


def add_unsupported(router: DockerRouter) -> None:
    """Add the routes of what is not there."""
    for what, routes in NOT_SERVED.items():
        for route in routes:
            method, pattern = route.split(" ", 1)
            router.add(method, pattern, _refusal(what))
    for route in OF_A_PLUGIN:
        method, pattern = route.split(" ", 1)
        router.add(method, pattern, _no_plugin)
    router.add("GET", "/plugins", _plugins)


def _refusal(what: str) -> Callable[[Request], Awaitable[Answer]]:
    async def refuse(_: Request) -> Answer:
        raise Unsupported(f"not supported by this daemon: {what}", code="not_served")

    return refuse


async def _no_plugin(request: Request) -> Answer:
    raise NotFound(f'plugin "{request.params["name"]}" not found', code="plugin_not_found")


async def _plugins(request: Request) -> Response:
    """GET /plugins: none, whatever the filters; wrong ones are told as for any list."""
    read_filters(request, ("capability", "enabled")).flag("enabled")
    return json_response([])
