"""Ringmain: every reading of an energy utility in one durable log, processed in motion, served live."""

__version__ = "0.1.0"
