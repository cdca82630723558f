"""Settings: every option of pg_bronze, typed and documented.

Belongs here: the settings and their validation, the environment, ``.env`` and the configuration of the ``mc`` client as
their sources, and the process-wide options set at startup. Does not belong here: anything that connects to a server.

``load_settings`` runs once in each process entry point, and the settings are passed down from there. This package
imports ``errors`` only. Importing it reads nothing and changes nothing.
"""
