"""What ``convmlp`` runs: a file a command, with ``add_arguments(parser)`` and ``run(args)``.

Shared are ``options``, ``models``, the one road from a name to a model or a job, and ``photo``.
No command imports another.
"""
