"""The unit and the hooks of man/examples: a hibernation is stopped by what is proved, and by nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "man" / "examples"
SCRIPT = EXAMPLES / "hibercheck-preflight.sh"
UNIT = EXAMPLES / "hibercheck-preflight.service"


@pytest.fixture
def answered(tmp_path):
    """Return a function that runs a script where hibercheck is a program that prints and ends as it is told."""

    def go(script, *arguments, body):
        program = tmp_path / "bin/hibercheck"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        environment = {
            "HIBERCHECK_PATH": str(program.parent),
            "HIBERCHECK_PATIENCE": "1",
            "HIBERCHECK_PREFLIGHT": str(SCRIPT),
        }
        return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)

    return go


@pytest.mark.parametrize("verdict", ["not found", "refused", "fatal"])
def test_what_is_proved_stops_it(answered, verdict):
    ran = answered(SCRIPT, "stop", body=f"echo '{verdict}: Debian: it looks elsewhere'; exit 1")
    assert ran.returncode == 1
    assert f"not hibernating: {verdict}: Debian" in ran.stderr


@pytest.mark.parametrize(
    "body",
    [
        "echo 'safe: Debian: fine'; exit 0",
        "echo 'risk: Debian: chance'; exit 0",
        "echo 'undetermined: Debian: not known'; exit 4",
        "echo 'fatal: Debian: x'; exit 4",
        "exit 1",  # a Python that does not start
        "echo 'No module named hibercheck' >&2; exit 1",
        "echo 'hibercheck: cannot be read'; exit 3",
        "exit 2",
        "kill -SEGV $$",
        "kill -KILL $$",
        "sleep 9; echo 'fatal: Debian: too late'; exit 1",
    ],
)
def test_nothing_else_does(answered, body):
    assert answered(SCRIPT, "stop", body=body).returncode == 0


def test_without_hibercheck_it_goes_on(tmp_path):
    ran = subprocess.run([SCRIPT, "stop"], env={"HIBERCHECK_PATH": str(tmp_path)}, capture_output=True, check=False)
    assert ran.returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        (SCRIPT, "warn"),
        (EXAMPLES / "95-hibercheck.install", "add", "6.1"),
        (EXAMPLES / "zzz-hibercheck", "6.1", "/boot/x"),
    ],
    ids=["script", "kernel-install", "debian"],
)
def test_hooks_warn_and_never_fail(answered, command):
    ran = answered(*command, body="echo 'fatal: Debian: x'; exit 1")
    assert ran.returncode == 0
    assert "could not be resumed now: fatal: Debian" in ran.stderr
    assert (answered(*command, body="exit 3").returncode, answered(*command, body="exit 0").stderr) == (0, "")


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    text = (EXAMPLES / "hibercheck-preflight.service").read_text()
    assert "ExecStart=/usr/local/libexec/hibercheck-preflight stop" in text
    unit = tmp_path / "hibercheck-preflight.service"
    unit.write_text(text.replace("/usr/local/libexec/hibercheck-preflight stop", f"{SCRIPT} stop"))
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert "hibercheck-preflight.service" not in ran.stderr, ran.stderr


def test_the_unit_has_a_place_for_what_is_unpacked():
    """Under ProtectSystem=strict /tmp is read-only: in a real system no kernel was read, and nothing stopped."""
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    settings = {key: value for key, _, value in lines}
    assert settings["ProtectSystem"] == "strict"
    given = dict(one.split("=", 1) for one in settings["Environment"].split())
    assert given["TMPDIR"] == f"/var/cache/{settings['CacheDirectory']}"
    assert given["XDG_CACHE_HOME"] == "/var/cache"
