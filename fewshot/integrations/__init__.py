"""Adapters for other frameworks, each with its extra."""
