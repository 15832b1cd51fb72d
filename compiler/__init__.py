"""From a typed graph to machine code; pipeline.py is the table of contents."""
