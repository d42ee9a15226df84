"""Learners: one method a file. Each registers itself; nothing is imported here."""
