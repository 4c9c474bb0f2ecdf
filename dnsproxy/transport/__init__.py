"""Clients of stores that snapshots go through: what helper and proxy have in common."""
