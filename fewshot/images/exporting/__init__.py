"""From a fitted classifier to a folder that a device answers and learns from, see `fewshot.runtime`."""
