"""The parts of a running node (intake, flows, server), and what runs each of them in a process of its own."""
