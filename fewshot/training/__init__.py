"""The meta-learner: it sees many small learning tasks and improves the embedding that learners rely on."""
