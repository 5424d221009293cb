"""The arguments of a measured case (``cases.json``) as options of a check."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hibercheck.cpulist import parse_cpu_list
from hibercheck.handoff.scenario.alternatives import Alternative
from hibercheck.handoff.scenario.options import CheckOptions


def options_of(args: Sequence[str], **more) -> CheckOptions:
    """Turn a case's command-line arguments into `CheckOptions`."""
    fields: dict = {"suppose": frozenset()}
    rest = list(args)
    while rest:
        name = rest.pop(0)
        if name in {"--spurious-mwait", "--mwait-spins", "--what-if"}:
            fields[name.removeprefix("--").replace("-", "_")] = True
            continue
        value = rest.pop(0)
        if name == "--suppose":
            fields["suppose"] |= {value}
        elif name == "--fact":
            fields["facts"] = (*fields.get("facts", ()), tuple(value.split("=", 1)))
        elif name in {"--resumer-offline", "--resumee-online", "--resumee-offline"}:
            fields[name.removeprefix("--").replace("-", "_")] = parse_cpu_list(value)
        elif name == "--resumer-phys-base":
            fields["resumer_phys_base"] = int(value, 0)
        elif name == "--resume-offset":
            fields["resume_offset"] = int(value)
        else:
            fields[name.removeprefix("--").replace("-", "_")] = value
    return CheckOptions(**{**fields, **more})


def says_the_same(alternative: Alternative, given: CheckOptions) -> bool:
    """Tell whether the arguments that an alternative names, in place of what was given, are its options."""
    words = [word for argument in alternative.arguments for word in argument if word]
    plain, added = CheckOptions(suppose=frozenset()), options_of(words)
    more = {
        name: value for name in plain.__dataclass_fields__ if (value := getattr(added, name)) != getattr(plain, name)
    }
    named = {name for name, _ in added.facts}
    if added.facts:
        more["facts"] = (*(one for one in given.facts if one[0] not in named), *added.facts)
    return dataclasses.replace(given, **more) == alternative.options
