"""Adapters for the frameworks that pipelines are built with, each with its extra."""
