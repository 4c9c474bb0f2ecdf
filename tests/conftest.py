"""Settings that hold for every test."""

from __future__ import annotations

import hypothesis

# No deadline: how long one example takes says more about the machine than about the code.
hypothesis.settings.register_profile("dnsproxy", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dnsproxy")
