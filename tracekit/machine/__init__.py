"""The board a guest sees."""
