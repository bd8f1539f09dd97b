"""Benchmarks: each prints the machine, the durability, what it was compared with in the same run, and the ratio."""
