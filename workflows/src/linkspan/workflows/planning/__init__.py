"""What a run would do, before it does anything: each step's changes, and all that would make it fail.

``known`` tells what can be evaluated before a run, ``world`` looks at secrets, images, ports and disk,
``planner`` asks the verbs, ``document`` is the plan as it is printed, kept and compared.
"""

from linkspan.workflows.planning.document import Plan, PlannedStep, differences
from linkspan.workflows.planning.planner import Planner

__all__ = ["Plan", "PlannedStep", "Planner", "differences"]
