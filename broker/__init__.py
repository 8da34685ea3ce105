"""A real-time broker for transient alert streams."""

__version__ = "0.1.0"
