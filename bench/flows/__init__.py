"""What each step of a flow does in a second."""
