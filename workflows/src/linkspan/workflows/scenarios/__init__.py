"""Scenarios: a pipeline runs in the real runner on fakes, and what happened is compared with a file."""
