"""Pipelines: YAML to a checked model, a plan, a run and its journal."""
