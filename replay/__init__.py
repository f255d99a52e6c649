"""A trace becomes the same run again, compared event by event."""
