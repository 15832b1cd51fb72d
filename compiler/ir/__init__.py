"""The graph: types, operators, immutable nodes, and what holds for them."""
