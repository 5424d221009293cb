"""``python -m hibercheck``."""

from hibercheck.cli.main import main

main()
