"""Alerts: conditions over readings, the life of an alert, groups that keep a flood from the operator."""
