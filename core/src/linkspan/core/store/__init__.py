"""What must survive a crash: one sqlite file, one writer."""
