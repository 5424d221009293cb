"""What opening a kernel for a check costs: one pass over its symbols."""

from __future__ import annotations

from collections import Counter

import pytest

from hibercheck.handoff.verdict.check import check
from hibercheck.kernel.symtab import ElfSymbols
from tests.support.cases import options_of


@pytest.mark.parametrize("name", ["fatal", "safe", "latent"])
def test_a_check_goes_through_the_symbols_of_each_kernel_once(committed, monkeypatch, name):
    case = committed(name)
    asked: Counter[str] = Counter()
    looked_up = ElfSymbols.lookup

    def lookup(self, names):
        asked[self.elf.path] += 1
        return looked_up(self, names)

    monkeypatch.setattr(ElfSymbols, "lookup", lookup)
    check(case["image"], case["resumer"], case["resumee"], options_of(case["args"]))
    assert asked == dict.fromkeys((case["resumer"], case["resumee"]), 1)
