"""Polars over traces: what was true, and what the guest was told.

For programs: `analysis.analyse` (what `tracekit analyze` says), `steal.steal` (the report), `steal.publications`, `steal.reads` and
`steal.per_vcpu` (frames), `timeline.over` and `timeline.intervals` (frames over time), `invariants.invariants` (findings).
"""
