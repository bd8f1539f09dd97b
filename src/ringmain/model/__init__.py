"""What flows: readings, events and rows, their quality, and the series that they belong to."""
