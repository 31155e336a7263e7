"""A first-party edge proxy for Hightouch Events that does not lose events."""

__version__ = "0.1.0"
