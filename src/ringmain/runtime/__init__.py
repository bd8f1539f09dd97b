"""What every part gets around it: intake, counters, dead letters, restart with backoff."""
