"""Polars over traces: what was true, and what the guest was told."""
