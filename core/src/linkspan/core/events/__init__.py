"""What happened, told to everybody who asks."""
