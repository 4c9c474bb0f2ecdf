"""Sockets and files. No decision about what DNS means lives here."""
