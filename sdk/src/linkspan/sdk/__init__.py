"""What every Linkspan plugin imports, and nothing else of ours."""
