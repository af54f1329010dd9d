"""The daemon: drivers, engine, components and API in one process."""
