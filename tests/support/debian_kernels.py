"""Fetch Debian's kernels: the image packages and, with ``--debug``, their -dbg packages with the full vmlinux.

    python tests/support/debian_kernels.py KERNELS --suite trixie --suite bookworm --debug
    python tests/support/debian_kernels.py KERNELS --table fixtures/kernel-traits.json

apt is pointed at a private root below the target directory, with its own sources, so that neither the machine's sources
nor its package state is read or changed, and no privilege is needed.  Each package is unpacked beside itself:
``boot/vmlinuz-RELEASE``, and ``vmlinux`` and ``System.map`` below ``usr/lib/debug``; nothing else is extracted.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIRROR = "https://deb.debian.org"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True)
class Suite:
    """One Debian suite and what its newest kernel package is called."""

    name: str
    sources: tuple[tuple[str, str], ...]
    """Pairs of archive and suite, such as ``("debian", "trixie")``."""
    release: str
    """Regular expression for the kernel releases of this suite, such as ``6\\.12\\.``."""


SUITES = (
    Suite("bullseye", (("debian", "bullseye"), ("debian-security", "bullseye-security")), r"5\.10\."),
    Suite("bookworm", (("debian", "bookworm"), ("debian-security", "bookworm-security")), r"6\.1\."),
    Suite("trixie", (("debian", "trixie"), ("debian-security", "trixie-security")), r"6\.12\."),
    Suite("trixie-backports", (("debian", "trixie-backports"),), r"[67]\.\d+\."),
)
FURTHER = (
    Suite("bookworm-backports", (("debian", "bookworm-backports"),), r"6\.\d+\."),
    Suite("forky", (("debian", "forky"),), r"\d+\.\d+\."),
    Suite("sid", (("debian", "sid"),), r"\d+\.\d+\."),
    Suite("experimental", (("debian", "experimental"),), r"\d+\.\d+"),
)


class Apt:
    """apt with a root of its own for one suite."""

    def __init__(self, root: Path, suite: Suite, *, source: bool = False) -> None:
        self.root = root.resolve()
        for directory in (
            "state/lists/partial",
            "cache/archives/partial",
            "etc/sources.d",
            "etc/preferences.d",
            "etc/conf.d",
        ):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        (self.root / "state/status").touch()
        lines = [
            f"{kind} [arch=amd64 signed-by={KEYRING}] {MIRROR}/{archive} {name} main"
            for archive, name in suite.sources
            for kind in ("deb", *(("deb-src",) if source else ()))
        ]
        (self.root / "etc/sources.list").write_text("\n".join(lines) + "\n")

    def run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run ``apt-get`` or ``apt-cache`` in the private root and return what it printed."""
        etc = self.root / "etc"
        options = {
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "state/status",
            "Dir::Cache": self.root / "cache",
            "Dir::Etc::sourcelist": etc / "sources.list",
            "Dir::Etc::sourceparts": etc / "sources.d",
            "Dir::Etc::preferences": etc / "preferences",
            "Dir::Etc::preferencesparts": etc / "preferences.d",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",
        }
        command = [tool, *(f"-o{key}={value}" for key, value in options.items()), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


def version_key(text: str) -> list[int]:
    """Sort key for releases and package versions: their numbers in order."""
    return [int(number) for number in re.findall(r"\d+", text)]


def releases(apt: Apt, suite: Suite, flavour: str, wanted: str | None) -> list[str]:
    """Kernel releases of a flavour (``cloud-amd64`` or ``amd64``) that the suite has, newest first."""
    pattern = re.compile(rf"linux-image-({suite.release}[0-9.]*[0-9a-z.+~-]*?-{re.escape(flavour)})")
    names = [
        match[1]
        for name in apt.run("apt-cache", "pkgnames", "linux-image-").split()
        if (match := pattern.fullmatch(name))
    ]
    if flavour == "amd64":
        names = [name for name in names if not re.search(r"-(cloud|rt)-", name)]
    names = [name for name in names if wanted is None or wanted in name]
    return sorted(names, key=version_key, reverse=True)


@dataclass(frozen=True, slots=True)
class Part:
    """A package, tar wildcards of what is wanted from it, and the directory that gets it."""

    package: str
    members: tuple[str, ...]
    into: str


def packages(apt: Apt, release: str, *, debug: bool) -> list[Part]:
    """Packages of a release."""
    # Since 7.x the kernel itself is in linux-binary-RELEASE, and linux-image-RELEASE only depends on it.
    binary = f"linux-binary-{release}"
    image = binary if binary in apt.run("apt-cache", "pkgnames", binary).split() else f"linux-image-{release}"
    whole = f"linux-image-{release}-dbg"
    return [*parts_of(image), *([Part(whole, ("*/vmlinux*", "*/System.map*"), whole)] if debug else [])]


def parts_of(image: str) -> list[Part]:
    """Packages of a kernel and its configuration, which is in linux-base where linux-binary holds the kernel alone."""
    if not image.startswith("linux-binary-"):
        return [Part(image, ("*/vmlinuz*", "*/config-*"), image)]
    base = image.replace("linux-binary-", "linux-base-", 1)
    return [Part(image, ("*/vmlinuz*",), image), Part(base, ("*/config",), image)]


def download(apt: Apt, package: str, directory: Path) -> Path | None:
    """The package's file, downloaded unless it is there; None when the archive lists it but lacks it."""
    if not list(directory.glob(f"{package}_*.deb")):
        try:
            apt.run("apt-get", "download", package, cwd=directory)
        except subprocess.CalledProcessError as error:
            print(f"{package}: {error.stderr.splitlines()[-1]}", file=sys.stderr)
            return None
    return max(directory.glob(f"{package}_*.deb"), key=lambda path: version_key(path.name))


def unpack(package: Path, members: tuple[str, ...], target: Path) -> None:
    """Extract the files matching ``members`` (tar wildcards) from a .deb."""
    target.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "-C", target, "--wildcards", *members], stdin=tar.stdout, check=True)


def fetch(suite: Suite, flavour: str, directory: Path, *, debug: bool, release: str | None) -> list[Path]:
    """Download and unpack the newest kernel of a suite that is there in full; give the kernels' paths."""
    apt = Apt(directory / ".apt" / suite.name, suite)
    apt.run("apt-get", "update")
    for candidate in releases(apt, suite, flavour, release):
        wanted = packages(apt, candidate, debug=debug)
        # The largest package first: when the archive has lost it, the next release is tried.
        found = [(download(apt, part.package, directory), part) for part in reversed(wanted)]
        if all(deb for deb, _ in found):
            for deb, part in found:
                if deb is not None:
                    unpack(deb, part.members, directory / part.into)
            roots = [directory / into for into in dict.fromkeys(part.into for part in wanted)]
            return [path for root in roots for path in sorted(root.rglob("vmlinu*")) if path.is_file()]
    raise SystemExit(f"{suite.name}: the archive has no complete kernel of flavour {flavour}")


def fetch_known(table: Path, directory: Path) -> None:
    """Download and unpack the kernels of a table that some suite still has, and say which none has."""
    missing = {row["package"] for row in json.loads(table.read_text()) if "made" not in row}
    for suite in (*SUITES, *FURTHER):
        apt = Apt(directory / ".apt" / suite.name, suite)
        apt.run("apt-get", "update")
        for image in sorted(missing.intersection(apt.run("apt-cache", "pkgnames", "linux-").split())):
            for part in parts_of(image):
                deb = download(apt, part.package, directory)
                if deb is None:
                    break
                unpack(deb, part.members, directory / part.into)
                missing.discard(image)
                print(deb)
    for package in sorted(missing):
        print(f"{package}: no suite has it", file=sys.stderr)


def main() -> int:
    """Fetch what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where packages and unpacked kernels go")
    parser.add_argument(
        "--suite",
        action="append",
        choices=[suite.name for suite in (*SUITES, *FURTHER)],
        help="default: the first four",
    )
    parser.add_argument("--flavour", default="cloud-amd64", help="cloud-amd64 or amd64 (default: %(default)s)")
    parser.add_argument("--release", help="only a release that contains this, such as 6.1.0-50")
    parser.add_argument("--debug", action="store_true", help="also the -dbg package, hundreds of megabytes")
    parser.add_argument("--table", type=Path, help="not the newest, but every kernel of this table that a suite has")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    if arguments.table:
        fetch_known(arguments.table, arguments.directory)
        return 0
    named = [suite for suite in (*SUITES, *FURTHER) if suite.name in (arguments.suite or ())]
    for suite in named or SUITES:
        for path in fetch(
            suite, arguments.flavour, arguments.directory, debug=arguments.debug, release=arguments.release
        ):
            print(path, path.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
