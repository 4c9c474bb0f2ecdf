"""Decides. Imports no asyncio, socket, ssl, time, random, structlog or yaml."""
