"""``--max-memory`` limits a command while it runs, and nothing else."""

import resource

import click
import pytest
from click.testing import CliRunner

from hibercheck.cli.options import GroupedCommand, general_options


@click.command("probe", cls=GroupedCommand)
@general_options
def probe(**_):
    click.echo(resource.getrlimit(resource.RLIMIT_DATA)[0])


def limit_now():
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


@pytest.mark.parametrize(("given", "kept"), [(["--max-memory", "3G"], 3 << 30), ([], 2 << 30)])
def test_the_command_runs_within_it(given, kept):
    before = limit_now()
    assert int(CliRunner().invoke(probe, given).output) == (kept if before < 0 else min(kept, before))
    assert limit_now() == before


def test_parsing_alone_limits_nothing():
    before = limit_now()
    probe.make_context("probe", ["--max-memory", "64M"])
    assert limit_now() == before


def test_zero_is_no_limit():
    assert int(CliRunner().invoke(probe, ["--max-memory", "0"]).output) == limit_now()
