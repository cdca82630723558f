"""Settings: what an operator may decide, typed, described and read once for each process entry point.

Belongs here: the models, reading the environment, ``.env`` and the ``mc`` client's configuration, and what a process
sets once when it starts. Does not belong here: anything that connects to a server. Imports ``errors`` only. Importing
it reads nothing and changes nothing.
"""
