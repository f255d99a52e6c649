"""Nothing is shared but the folder of this file; see support.py."""
