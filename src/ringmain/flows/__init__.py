"""What happens to data in motion: deterministic folds over the log."""
