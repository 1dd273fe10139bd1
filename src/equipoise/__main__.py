"""``python -m equipoise``: the command line, where the ``equipoise`` script is not on the path."""

from equipoise.cli import main

main()
