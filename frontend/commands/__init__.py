"""The command line, one file a command: ``HELP``, ``add_arguments(parser)``, ``run(options)``."""
