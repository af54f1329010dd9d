"""Services, tasks and rollouts."""
