"""What `preflight` said of entries beside what they then did: the record as a table."""

from __future__ import annotations

from typing import Any

FORETELLS = {
    "not-found": {"fresh", "no image"},
    "refused": {"fresh", "refused"},
    "fatal": {"resets"},
    "safe": {"resumes"},
    "benign": {"resumes"},
    "latent": {"resumes"},
    "risk": {"resets", "resumes"},
}
"""What a verdict lets happen; `refused` is also said of a kernel that does not look for an image (noresume)."""
HEAD = """# Whole Debian systems: what preflight says, and what then happens

Debian 13 on a disk of its own, in QEMU 7.2 (TCG, q35, Skylake-Client, one core of two threads, 768 MiB), started by
GRUB (BIOS, ext4, initramfs-tools; CPUs with 5-level paging) or by systemd-boot (OVMF, btrfs, dracut); kernels 6.12
(`new`) and 6.1 (`old`) of Debian, and `small`, one of fixtures/ that leaves its sibling in MWAIT. `hibercheck
preflight` was asked in the system as root, and with `--root` on its disk mounted outside; then it hibernated, and each
entry was started on a copy of the disk. `python -m tests.lab.debian` makes it all again, and this table from
`records/debian/preflight.jsonl`. `undetermined` outside: which disk a name means shows only on its machine.

| session, entry | inside | outside | what happened |
|---|---|---|---|
"""


def agrees(line: dict[str, Any], where: str) -> bool | None:
    """Whether what was said inside or outside is what happened; None where nothing was said of it."""
    verdict = line[where]["verdict"]
    return None if verdict == "undetermined" else line["outcome"] in FORETELLS[verdict]


def table(lines: list[dict[str, Any]]) -> str:
    """Return the record as Markdown."""
    rows, more = [], []
    for line in lines:
        if "stopped" in line:
            what = "stopped" if line["stopped"] else "did not stop"
            more.append(
                f"\n`{line['name']}`: with `{line['default']}` for its default entry the systemd unit of man/examples "
                f"{what} the hibernation; with the usual default it let it go, which the rows show.\n"
            )
        elif "inside" not in line:
            same = "the same" if line["alone"] == line["full"] else "not the same"
            but = f", but for {', '.join(line['differs'])}" if line["differs"] else ""
            more.append(f"\n`{line['name']}`: `hibercheck DEVICE` says {same} as the full command{but}.\n")
        if "inside" not in line:
            continue
        errno = f" ({line['errno']})" if line.get("errno") and line["outcome"] == "refused" else ""
        said = [line[where]["verdict"] + ("" if agrees(line, where) is not False else " **no**") for where in SIDES]
        rows.append(f"| {line['session']}, {line['entry']} | {said[0]} | {said[1]} | {line['outcome']}{errno} |\n")
    return HEAD + "".join(rows) + "".join(more) + FOUND


SIDES = ("inside", "outside")
FOUND = """
By hand, in the session grub-old: with the running kernel's file moved away, preflight read that kernel out of
/proc/kcore, and said of every entry that still had its kernel the same as before.

What these runs found, each mended with a test that holds it:

- The systemd unit stopped nothing: under ProtectSystem=strict there was no directory to unpack a kernel in.
- systemd in what dracut 106 makes lets an image lie that HibernateLocation names: it has ID=dracut in its os-release,
  and preflight had said `safe`. `host` is an initramfs with the system's own os-release.
- Outside, `resume=` with another partition's name was `undetermined`; the table of the mounted disk tells them apart.
- Nothing was asked about who opens an encrypted swap (seen while that session was written; a made system holds it).
"""
