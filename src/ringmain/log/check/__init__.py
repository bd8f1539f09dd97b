"""`ringmain log verify`: every byte of a log against every other statement about it."""
