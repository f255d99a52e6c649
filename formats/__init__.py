"""What a trace is: the law in SPEC.md, schemas, manifest, writer, reader, recovery."""
