"""LLM gateway daemon: callers of any LLM API, answered by any upstream."""

__version__ = "0.1.0"
