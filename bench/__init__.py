"""Benchmarks of dnsproxy beside the DNS servers that people would run in its place.

`python -m bench --help` tells what can be run; every server, the load and the
backend stay on 127.0.0.1, and every child is stopped by its own process id.
"""
