"""The scikit-learn estimators on embeddings."""
