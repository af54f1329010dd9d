from pathlib import Path

from linkspan.plugins.docker_api.unsupported import NOT_SERVED

PAGE = Path(__file__).parents[3] / "docs/reference/http-api.md"


async def test_every_route_that_is_served_is_in_the_reference(api) -> None:
    refused = {route for routes in NOT_SERVED.values() for route in routes}
    served = {f"{method} {pattern}" for _, method, pattern, _, _ in api.router.routes} - refused
    text = PAGE.read_text()
    missing = [route for route in sorted(served) if f"`{route.replace(':path', '')}`" not in text]
    assert missing == []
    listed = {part for part in text.split("`") if part.split(" ")[0] in ("GET", "POST", "DELETE")}
    assert listed <= {route.replace(":path", "") for route in served}
