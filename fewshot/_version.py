"""Version and name of the distribution, in a file of its own so that setup.cfg reads it without an import."""

__version__ = "0.1.0.dev0"
#: The name that pip installs and setup.cfg declares. PyPI has a "few-shot", which it holds to be the same as "fewshot".
DISTRIBUTION = "fewshot-learn"
