"""A copy of a running log, and its return as a new incarnation."""
