"""Finds plugins by their manifests, loads drivers lazily, calls hooks guarded."""
