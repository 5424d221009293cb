"""Cases with a page of the image, or a trait of the resumer, changed."""

from __future__ import annotations

import json
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from hibercheck.addresses import PAGE_SIZE
from hibercheck.handoff.acceptance.refusal import judge_acceptance
from hibercheck.handoff.verdict.check import open_inputs
from hibercheck.kernel.code.facts import facts_of
from hibercheck.kernel.kernel import open_kernel
from hibercheck.swsusp.image import open_image
from tests.support.cases import options_of

HW_SIG_AT, FLAGS_AT, SF_HW_SIG = PAGE_SIZE - 40, PAGE_SIZE - 24, 8
PAGES_AT = 400
"""swsusp_info.num_physpages (kernel/power/power.h)."""


class Asked:
    """A case, to be asked again with changes."""

    def __init__(self, case, directory):
        self.case = case
        self.directory = directory
        self.data = bytearray(Path(case["image"]).read_bytes())
        self.resumer = case["resumer"]
        self.kept = {}

    def sign(self, signature):
        """Give the header a hardware signature."""
        flags = struct.unpack_from("<I", self.data, FLAGS_AT)[0] | SF_HW_SIG
        struct.pack_into("<I", self.data, FLAGS_AT, flags)
        struct.pack_into("<I", self.data, HW_SIG_AT, signature)

    def count(self, pages):
        """Say that the resumee had so many pages, more or fewer by so many."""
        with open_image(self.case["image"]) as image:
            place = image.info_offset + PAGES_AT
        struct.pack_into("<Q", self.data, place, struct.unpack_from("<Q", self.data, place)[0] + pages)

    def record(self, magic, digest):
        """Give the arch record another version, and a digest of the memory map in place of the checksum."""
        with open_image(self.case["image"]) as image:
            struct.pack_into("<Q16s", self.data, image.info_offset + 24, magic, digest)

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
        self.data[place : place + len(content)] = content

    def have(self, **traits):
        """Give the resumer other traits; it is then known by its facts only."""
        self.kept |= traits

    def _resumer(self):
        if not self.kept:
            return self.resumer
        with open_kernel(self.resumer) as kernel:
            document = facts_of(kernel)
        for name, value in self.kept.items():
            document["traits"][name]["value"] = value
            document["traits"][name]["reason"] = None
        path = self.directory / "resumer.json"
        path.write_text(json.dumps(document))
        return str(path)

    def plan(self, stack, line=None, **more):
        if line is not None or "resumer_facts" in more:
            more["resumer_cmdline"] = line
        path = self.directory / "image.bin"
        path.write_bytes(self.data)
        inputs = open_inputs(str(path), self._resumer(), self.case["resumee"], options_of(self.case["args"], **more))
        return stack.enter_context(inputs)[0]

    def refusal(self, line=None, **more):
        """Return why the resumer refuses, or None."""
        with ExitStack() as stack:
            return judge_acceptance(self.plan(stack, line, **more)).refusal


@pytest.fixture
def asked(committed, tmp_path):
    """Return a function that makes a case ready to be changed; `latent` has an image that is not compressed."""
    return lambda name="latent": Asked(committed(name), tmp_path)
