"""The configuration as frozen models. Every key, its unit, range and default stands here.

`config.load` reads a file into `Settings`; nothing else builds one outside tests.
"""

from dnsproxy.settings.document import Settings, schema

__all__ = ["Settings", "schema"]
