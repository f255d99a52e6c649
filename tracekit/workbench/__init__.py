"""What needs several wings: the demo and, later, the Python API."""
