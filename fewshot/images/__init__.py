"""From items to answers: the few-shot model, how it is saved, its pages and its export."""
