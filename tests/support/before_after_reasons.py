"""Why commands answer otherwise than at 4138b49, before there was one engine: see `tests.support.before_after`."""

from __future__ import annotations

_VERSION = "schema version 2: may-reset is an outcome of its own, and members were added (CHANGELOG, migration)"
_STANDING = "every fact that decides has a standing, and what could be otherwise is judged: conditions"
_WORDS = "plainer words"
_SESSION = "what an image tells of its session, swap area and disk, and what was used since"
_RISK = "a risk has an outcome of its own; it was resumes or resets, by majority"
_TIMING = "when a store wakes a CPU, and what its line is to the resumee, decides of HC101, HC102 and HC701"
_PLACES = "each class of load addresses is judged by the engine: what holds of one place only is not told of all"
_GROUPS = "CPUs of which the same is said are told together"
_CERTAIN = (
    "an event after the copy is delivered by the engine: what failed by tables that were not known is certain now"
)

REASONS: tuple[tuple[str, str, tuple[object, object] | None, str], ...] = (
    (".*", "schema_version", None, _VERSION),
    ("diff|matrix", r".*conditions is new", None, _STANDING),
    ("matrix", r"assumptions\[\].*", None, _STANDING),
    (
        "matrix",
        r"rows\[\]\.cells\[\]\[\]\.verdict",
        ("safe", "benign"),
        "as the check says: a loop that the same bytes overwrite is benign, and told",
    ),
    ("schema", ".*", None, _VERSION),
    ("check|designs|diff|matrix", r".*outcome( is .*)?", ("resumes", "may-reset"), _RISK),
    ("check|designs|diff|matrix", r".*outcome( is .*)?", ("resets", "may-reset"), _RISK),
    ("check", r"assumptions\[\].*", None, _STANDING),
    ("check", r"(conditions|usual_outcome|gate\.strict|missing\[\]|scenario\.mwait_spins) is new", None, _STANDING),
    ("check", r"missing\[\].*", None, _STANDING),
    (
        "check",
        r"cpus\[\]\.(cause|when|doubt|exposure|exposure_unknown|lent|line|timing) is new",
        None,
        "cause, time and exposure are data",
    ),
    ("check|designs", r".*cpus\[\]\.(cpus|apic_ids) is new", None, _GROUPS),
    ("check", r"cpus\[\] is gone", None, _GROUPS),
    ("check", r"(evidence|frames|resume[er]\.size) is new", None, _VERSION),
    ("check", "taken_for_granted is new", None, _STANDING),
    ("check", r"cpus\[\]\.(sentence|why)", None, _WORDS),
    ("check", r"warnings\[\] is (new|gone)", None, _WORDS),
    ("designs", r"((designs\[\]|own)\.(conditions|strict)|warnings) is new", None, _STANDING),
    ("designs", r"designs\[\]\.rest is new", None, "in which state a CPU that the resumee has offline spends its time"),
    ("diff", r".*warnings is new", None, "what was not judged of a pair is told"),
    ("check", r"image\.\w+ is new", None, _SESSION),
    ("image", r"(session|swap|throw_away|used_since|verification\.frames|hibernate_location) is new", None, _SESSION),
    ("check", "refusal is new", None, "a refusal says which of the kernel's tests fails, and what the kernel prints"),
    (
        "check",
        r"findings\[\]\.evidence\[\].* is new",
        None,
        "more evidence: what is told beside a finding, not another one",
    ),
    ("check", r"findings\[\]\.evidence.*", None, "more evidence: what is told beside a finding, not another one"),
    ("check", r"findings\[\]( is (new|gone))?", None, _TIMING),
    ("check", r"findings\[\]\.(level|message|fingerprint|advice|name|resume.*|role|cpu|mark).*", None, _TIMING),
    ("check", "headline", None, _WORDS),
    (
        "check",
        r"timeline\[\].*",
        None,
        "the timeline and the verdict read the same traces: a copy that hurts a cached walk is told",
    ),
    ("check", r"cpus\[\]\.footprint\[\].*", None, "the footprint of a parking place has its page tables too"),
    ("check", r"resumer\.command_line", None, "out of a dump comes the whole command line with which the resumer runs"),
    ("check|kernel|diff", r".*compressors.*", None, "compressors: built in, in a module, or not at all"),
    ("diff", r"changes\[\].*", None, "a loop that only moved is no change, and new traits are compared"),
    (
        "kernel",
        "exit status",
        (4, 0),
        "code of other compilers is read: no trait that the handoff needs is missing any more",
    ),
    ("kernel", ".*", None, "traits that were added, and compressors: built in, in a module, or not at all"),
    ("check", r"share\..*", None, _PLACES),
    ("check", r"cpus\[\]\.cr3", None, _PLACES),
    ("designs", r"designs\[\]\.(cpus\[\]\.(fate|sentence)|frames\[\].*|placement)", None, _PLACES),
    ("designs", r"designs\[\]\.exposure\..*", ("depends", "dies"), _CERTAIN),
    ("designs", r"designs\[\]\.(notes|summary).*", None, _WORDS),
    ("diff|matrix", r".*reason.*", None, _WORDS),
    ("matrix", r"(missing_rows|shards) is new", None, "parts of a table may be judged elsewhere and merged"),
    ("matrix", r"rows\[\]\.cells\[\].* is (new|gone)", None, _VERSION),
    ("rules", ".*", None, "rules that were added, and plainer names"),
    ("explain", ".*", None, _WORDS),
)
"""Commands, members (both regular expressions) and, where it counts, values before and after; and why."""
