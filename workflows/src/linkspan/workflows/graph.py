"""The order of jobs: who waits for whom, and circles in it. Every cost is linear in the edges."""

from collections.abc import Mapping, Sequence


def find_circle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The jobs of one circle, each needing the next, first the earliest written; empty if none.

    Names that are not keys are left out.
    """
    state: dict[str, int] = {}
    for root in needs:
        if root in state:
            continue
        path: list[str] = []
        stack = [(root, iter(needs[root]))]
        state[root] = 1
        path.append(root)
        while stack:
            job, rest = stack[-1]
            following = next((name for name in rest if name in needs), None)
            if following is None:
                stack.pop()
                path.pop()
                state[job] = 2
            elif state.get(following) == 1:
                return _from_earliest(path[path.index(following) :], list(needs))
            elif following not in state:
                state[following] = 1
                path.append(following)
                stack.append((following, iter(needs[following])))
    return []


def _from_earliest(circle: list[str], order: list[str]) -> list[str]:
    place = {name: index for index, name in enumerate(order)}
    at = min(range(len(circle)), key=lambda index: place[circle[index]])
    return circle[at:] + circle[:at]
