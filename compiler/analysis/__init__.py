"""Facts about a graph: views of it, liveness, cost."""
