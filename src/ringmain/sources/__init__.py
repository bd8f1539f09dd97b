"""How data comes in: one module a protocol, and the mapping of messages to readings."""
