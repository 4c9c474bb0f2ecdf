"""Any other registry: the user lists its names."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Provider, Variant

GENERIC = Provider(
    key="generic",
    title="any other registry",
    # For the reader of the file; no name is made of them.
    parameters=(
        Parameter("region", "anywhere", required=False),
        Parameter("instance", "any", required=False),
    ),
    variants={"listed": Variant(None)},
    auth="none",
    storage=(),
    tells_bucket=True,
    notes="""
- All names stand under `names`; `discover` works when one has the role registry.
""",
)
