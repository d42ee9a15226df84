"""How well a learner does on episodes, and how sure that is."""
