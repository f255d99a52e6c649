"""A scenario becomes a trace."""
