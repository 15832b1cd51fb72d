"""Derivatives: scalar formulas by SymPy, the chain rule over the graph."""
