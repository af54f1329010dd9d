"""The check of a pipeline that has been read: the graph, every expression, and likely mistakes."""

from linkspan.workflows.checking.checker import Checker

__all__ = ["Checker"]
