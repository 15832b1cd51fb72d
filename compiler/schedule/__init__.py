"""Which nodes become one kernel, in what order, and where buffers live."""
