"""``python -m headstart`` is the ``headstart`` command."""

from headstart.cli.main import main

main()
