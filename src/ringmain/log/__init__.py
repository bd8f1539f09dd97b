"""Where everything is kept: the `Log` interface and the embedded journal."""
