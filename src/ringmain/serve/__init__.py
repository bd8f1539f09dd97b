"""How people and programs look at it: HTTP API, live push, SQL, the page."""
