"""Health, metrics and the JSON API."""
