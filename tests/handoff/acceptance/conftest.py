"""Cases with a page of the image, or a trait of the resumer, changed."""

from __future__ import annotations

import functools
import json
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from hibercheck.addresses import PAGE_SIZE
from hibercheck.handoff.acceptance.refusal import judge_acceptance
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.kernel.code.facts import facts_of
from hibercheck.swsusp.image import open_image
from tests.support.cases import options_of
from tests.support.opened import opened
from tests.support.unpacked import copied

HW_SIG_AT, FLAGS_AT, SF_HW_SIG = PAGE_SIZE - 40, PAGE_SIZE - 24, 8
PAGES_AT = 400
"""swsusp_info.num_physpages (kernel/power/power.h)."""


@functools.cache
def facts_text(kernel):
    """Say all that is read of a kernel, as its facts file does."""
    return json.dumps(facts_of(opened(kernel)))


class Asked:
    """A case, to be asked again with changes."""

    def __init__(self, case, directory):
        self.case = case
        self.directory = directory
        self.changed = {}
        self.kept = {}

    def sign(self, signature):
        """Give the header a hardware signature."""
        flags = struct.unpack("<I", self._read(FLAGS_AT, 4))[0] | SF_HW_SIG
        self.changed[FLAGS_AT] = struct.pack("<I", flags)
        self.changed[HW_SIG_AT] = struct.pack("<I", signature)

    def count(self, pages):
        """Say that the resumee had so many pages, more or fewer by so many."""
        with open_image(self.case["image"]) as image:
            place = image.info_offset + PAGES_AT
        self.changed[place] = struct.pack("<Q", struct.unpack("<Q", self._read(place, 8))[0] + pages)

    def record(self, magic, digest):
        """Give the arch record another version, and a digest of the memory map in place of the checksum."""
        with open_image(self.case["image"]) as image:
            self.changed[image.info_offset + 24] = struct.pack("<Q16s", magic, digest)

    def _read(self, place, size):
        with Path(self.case["image"]).open("rb") as file:
            file.seek(place)
            return file.read(size)

    def poke(self, symbol, offset, content):
        """Change a variable of the resumee."""
        self._write(lambda space: space.address(symbol) + offset, content)

    def write_line(self, text):
        """Give the resumee another command line, no longer than its own."""
        self._write(lambda space: space.variable("saved_command_line"), text.encode() + b"\0")

    def _write(self, address, content):
        """Change bytes of the resumee's memory; the image is not compressed."""
        with ExitStack() as stack:
            plan = self.plan(stack, "")
            physical = plan.resumee.space.physical(address(plan.resumee.space))
            image = plan.image
            assert image.compressor == "none"
            index = image.pfns.data_index(physical // PAGE_SIZE)
            start, _ = image.swap_map.run_at(1 + image.info.meta_pages + index)
        place = start + physical % PAGE_SIZE
        self.changed[place] = content

    def have(self, **traits):
        """Give the resumer other traits; it is then known by its facts only."""
        self.kept |= traits

    def _resumer(self):
        if not self.kept:
            return opened(self.case["resumer"])
        document = json.loads(facts_text(self.case["resumer"]))
        for name, value in self.kept.items():
            document["traits"][name]["value"] = value
            document["traits"][name]["reason"] = None
        path = self.directory / "resumer.json"
        path.write_text(json.dumps(document))
        return str(path)

    def _image(self):
        """Write the changes into a copy, which is made for the first of them."""
        if not self.changed:
            return self.case["image"]
        path = self.directory / "image.bin"
        if not path.exists():
            copied(self.case["image"], path)
        with path.open("r+b") as file:
            for place, content in self.changed.items():
                file.seek(place)
                file.write(content)
        return str(path)

    def plan(self, stack, line=None, **more):
        if line is not None or "resumer_facts" in more:
            more["resumer_cmdline"] = line
        options = options_of(self.case["args"], **more)
        inputs = open_inputs(self._image(), self._resumer(), opened(self.case["resumee"]), options)
        return stack.enter_context(inputs)[0]

    def refusal(self, line=None, **more):
        """Return why the resumer refuses, or None."""
        with ExitStack() as stack:
            return judge_acceptance(self.plan(stack, line, **more)).refusal


@pytest.fixture
def asked(committed, tmp_path):
    """Return a function that makes a case ready to be changed; `latent` has an image that is not compressed."""
    return lambda name="latent": Asked(committed(name), tmp_path)
