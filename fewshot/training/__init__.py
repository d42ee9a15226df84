"""The meta-learner: sees many learning tasks and improves the embedding that the learner stands on."""
