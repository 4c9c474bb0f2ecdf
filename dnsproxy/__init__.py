"""DNS proxy for container registries that live in another cloud region.

Reading order: ``core/engine.py`` (what a query gets), ``net/udp.py`` (how it
arrives), ``app.py`` (how the parts are put together).
"""

from dnsproxy.version import __version__

__all__ = ["__version__"]
