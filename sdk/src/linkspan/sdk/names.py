"""Names for those who gave none."""

import secrets
from collections.abc import Container

_ADJECTIVES = (  # noqa: SIM905 - a list of words reads better as text
    "able amber brave bright brisk calm clever crisp eager fair fleet fond gentle glad grand keen kind "
    "lively loyal lucid merry mild neat noble patient plucky proud quick quiet ready sharp sleek smart "
    "snug steady sturdy sunny swift tidy trim trusty warm wise witty"
).split()
_NOUNS = (  # noqa: SIM905
    "anchor barge beacon bollard bow bridge brig buoy cabin canal capstan clipper compass crane current "
    "cutter deck dinghy dock ferry fjord galley gull harbour helm hull island jetty keel lantern lighthouse "
    "lock lugger mast mooring oar pier pilot port prow quay ramp reef rudder sail schooner skiff sloop "
    "strait tender tide tug voyage wharf winch yawl"
).split()


def free_name(taken: Container[str]) -> str:
    """A name nobody has, ``brisk_harbour``."""
    for attempt in range(1000):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
        if attempt > 20:
            name += secrets.token_hex(2)
        if name not in taken:
            return name
    raise AssertionError("names ran out")
