"""Settings of all tests."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["left_behind"]

# The same examples every time: a test that fails one run in fifty stops the wrong person.
# `pytest --hypothesis-profile=explore` looks for new ones.
_UNHURRIED = [HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile(
    "linkspan", deadline=None, derandomize=True, suppress_health_check=_UNHURRIED
)
settings.register_profile("explore", deadline=None, suppress_health_check=_UNHURRIED)
settings.load_profile("linkspan")
