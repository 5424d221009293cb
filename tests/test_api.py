"""The Python interface: one check, many with kernels that stay open, and what a report turns into."""

from __future__ import annotations

import json
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import hibercheck
from hibercheck import errors
from tests.report.test_formats import SCHEMA
from tests.support.unpacked import plain_path


@pytest.fixture(scope="module")
def files():
    return Path(plain_path("images/9c031ac5a1.bin.xz")), Path(plain_path("kernels/small-hlt.vmlinux.xz"))


def test_a_kernel_that_stays_open_gives_the_same_reports(files):
    image, path = files
    with hibercheck.open_kernel(path) as kernel:
        first = hibercheck.check(image, kernel, spurious_mwait=True)
        other = hibercheck.check(plain_path("images/b65f345bef.bin.xz"), kernel, spurious_mwait=True)
        again = hibercheck.check(image, kernel, spurious_mwait=True)
    alone = hibercheck.check(image, path, spurious_mwait=True)
    assert first == again == alone
    assert (first.verdict, other.verdict) == ("fatal", "benign")


def test_a_report_is_a_dictionary_and_a_picture(files):
    report = hibercheck.check(*files, options=hibercheck.CheckOptions(spurious_mwait=True))
    assert isinstance(report, hibercheck.Report)
    jsonschema.validate(report.to_dict(), SCHEMA, cls=jsonschema.Draft202012Validator)
    run = [sys.executable, "-m", "hibercheck", *map(str, (files[0], "--resumer", files[1])), "--spurious-mwait"]
    written = subprocess.run([*run, "--format", "json"], capture_output=True, check=False)
    assert json.loads(written.stdout) == report.to_dict()
    shown = report._repr_html_()
    assert shown.startswith("<p><strong>RESETS (fatal): The machine resets")
    assert "</svg>" in shown


def test_what_was_asked_of_a_kernel_is_kept_where_one_says(files, tmp_path, monkeypatch):
    image, path = files
    expected = hibercheck.check(image, path, spurious_mwait=True)
    assert hibercheck.check(image, path, spurious_mwait=True, cache=tmp_path / "kept") == expected
    (entry,) = (tmp_path / "kept").iterdir()
    with hibercheck.open_kernel(path, cache=str(tmp_path / "kept")) as kernel:
        assert hibercheck.check(image, kernel, spurious_mwait=True) == expected
    monkeypatch.setattr("hibercheck.handoff.facts.kernels.open_kernel", None)  # from now on none is opened
    assert hibercheck.check(image, path, spurious_mwait=True, cache=tmp_path / "kept") == expected
    assert list((tmp_path / "kept").iterdir()) == [entry]


def test_errors_are_the_documented_ones(files):
    with pytest.raises(hibercheck.HibercheckError) as caught:
        hibercheck.check(files[1], files[1])
    assert isinstance(caught.value, errors.HibercheckError)
    with pytest.raises(hibercheck.HibercheckError):
        hibercheck.open_kernel(files[0])


def test_pydoc_shows_it():
    shown = re.sub(r"\(\n +", "(", pydoc.plain(pydoc.render_doc(hibercheck)))  # 3.13 folds a long signature
    for name in ("check(image", "open_kernel(kernel", "class Report", "to_dict(self)", "class CheckOptions"):
        assert name in shown


def test_the_version_alone_imports_nothing():
    code = "import sys, hibercheck; hibercheck.__version__; print('hibercheck.api' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
