"""The arguments of a measured case (``cases.json``) as options of a check."""

from __future__ import annotations

from collections.abc import Sequence

from hibercheck.handoff.options import CheckOptions


def options_of(args: Sequence[str], **more) -> CheckOptions:
    """Turn a case's command-line arguments into `CheckOptions`."""
    fields: dict = {"suppose": frozenset()}
    rest = list(args)
    while rest:
        name = rest.pop(0)
        if name == "--spurious-mwait":
            fields["spurious_mwait"] = True
            continue
        value = rest.pop(0)
        if name == "--suppose":
            fields["suppose"] |= {value}
        elif name == "--resumer-offline":
            fields["resumer_offline"] = frozenset(int(cpu) for cpu in value.split(","))
        elif name == "--resume-offset":
            fields["resume_offset"] = int(value)
        else:
            fields[name.removeprefix("--").replace("-", "_")] = value
    return CheckOptions(**{**fields, **more})
