"""Probabilities that can be trusted, and queries of unknown classes told apart, from classes held out for that."""
