"""Graph to graph: canonical forms, algebra, numerical stability, folding."""
