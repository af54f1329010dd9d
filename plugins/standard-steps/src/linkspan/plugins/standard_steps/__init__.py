"""The pipeline verbs in the box."""
