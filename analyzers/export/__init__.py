"""A trace in the formats of other tools: Perfetto, Chrome's trace viewer, Parquet, CSV."""
