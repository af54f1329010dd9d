"""Measures of pull and push."""

import os
from functools import partial

from measure import Bench, Measure, Sample
from place import Engine


def measures(bench: Bench) -> list[Measure]:
    """In the order of the table."""
    return [
        Measure("pull", "docker pull of app, no layer there", _pull(bench, bench.app), 5, 0.25),
        Measure("pull-many", "docker pull of 40 small layers", _pull(bench, bench.many), 5, 0.25),
        Measure(
            "push",
            "docker push of app to an empty registry",
            partial(_push, bench),
            3,
            0.07,
            warm_ups=0,
        ),
    ]


def _pull(bench: Bench, reference: str) -> Sample:
    def sample(engine: Engine) -> float:
        engine.docker("rmi", "-f", reference, check=False)
        os.sync()
        return engine.docker("pull", "-q", reference)

    return sample


def _push(bench: Bench, engine: Engine) -> float:
    bench.target.wipe()
    bench.changes += 1
    reference = f"{bench.target.host}/pushed-{bench.changes}/app:1"
    engine.docker("pull", "-q", bench.app)
    engine.docker("tag", bench.app, reference)
    os.sync()
    took_s = engine.docker("push", reference)
    engine.docker("rmi", reference)
    return took_s
