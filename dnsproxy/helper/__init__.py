"""Runs in the source region: resolves the names and publishes them."""
