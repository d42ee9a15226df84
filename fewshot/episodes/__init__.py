"""Learning tasks: episodes drawn as a pure function of a seed and their number, one kind of sampler a file."""
