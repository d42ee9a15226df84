"""From image files to answers: embedder and classifier in one, saved and loaded as one folder."""
