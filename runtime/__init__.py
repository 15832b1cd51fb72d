"""Running what the compiler made: buffers, threads, caches, interpreters."""
