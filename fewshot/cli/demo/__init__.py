"""The demonstration: train, learn new classes, cross the domain, add a class, look up."""
