"""A symbolic-to-compiled graph compiler for neural networks."""
