"""Commands in groups; `cli` registers them."""
