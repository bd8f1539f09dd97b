"""What is missing, and the proof that nothing else is: entries, and the accounts of sources."""
