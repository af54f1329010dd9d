"""Runs containers with crun or runc, held by conmon."""
