"""Timings of chainrule and its peers on equal terms."""
