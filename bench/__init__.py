"""The benchmark: `make bench`, or `python -m bench --help`.

The server is pinned to core 0; the load and the upstream to core 1. Every figure is compared with
a baseline that was measured in the same round, so that a noisy machine disturbs both.
"""
