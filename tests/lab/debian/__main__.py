"""``python -m tests.lab.debian``: build systems, hibernate them, start their entries, record what comes of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.lab.debian.agreement import table
from tests.lab.debian.build import MORE, ROOT, build
from tests.lab.debian.provision import provision
from tests.lab.debian.sessions import SESSIONS
from tests.lab.debian.sitting import RECORD, carry_out, recorded


def main() -> None:
    """Parse the command line and do it."""
    top = argparse.ArgumentParser(prog="python -m tests.lab.debian", description=__doc__)
    top.add_argument("--place", type=Path, help="where trees and disks are: 6 GB")
    commands = top.add_subparsers(required=True, dest="command")
    make = commands.add_parser("build", help="make the trees and the disks (as root, with debootstrap and apt)")
    make.add_argument("--base", type=Path, help="what debootstrap made already")
    go = commands.add_parser("run", help="carry out what is not in the record")
    go.add_argument("--session", action="append", choices=[one.name for one in SESSIONS])
    go.add_argument("--entry", action="append", default=[])
    go.add_argument("--record", type=Path, default=RECORD)
    commands.add_parser("table", help="write debian.md anew from the record")
    options = top.parse_args()
    if options.command == "table":
        (ROOT / "tests/lab/debian.md").write_text(table(recorded(RECORD)))
        return
    if options.place is None:
        top.error("give --place")
    place = options.place.resolve()
    if options.command == "build":
        build(place, base=options.base)
        for kind in MORE:
            provision(place, kind)
        return
    for session in SESSIONS:
        if not options.session or session.name in options.session:
            carry_out(place, session, options.record, tuple(options.entry))


if __name__ == "__main__":
    main()
