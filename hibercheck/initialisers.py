# ruff: noqa: ANN001, ANN201, D103, F821 - parameters are renamed, and the names of setters are in a scope of their own
# mypy: ignore-errors
"""What `hibercheck.data` would compile for a record of up to twelve fields, compiled with this file.

Of each function only the code is used: its parameters are renamed, and ``put_0`` to ``put_11`` are in the scope that it
is given.  To compile as much for the records of a check took a hundredth of all of it.
"""

from __future__ import annotations


def init_0(self):
    pass


def init_1(self, _0):
    put_0(self, _0)


def init_2(self, _0, _1):
    put_0(self, _0)
    put_1(self, _1)


def init_3(self, _0, _1, _2):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)


def init_4(self, _0, _1, _2, _3):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)


def init_5(self, _0, _1, _2, _3, _4):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)


def init_6(self, _0, _1, _2, _3, _4, _5):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)


def init_7(self, _0, _1, _2, _3, _4, _5, _6):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)
    put_6(self, _6)


def init_8(self, _0, _1, _2, _3, _4, _5, _6, _7):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)
    put_6(self, _6)
    put_7(self, _7)


def init_9(self, _0, _1, _2, _3, _4, _5, _6, _7, _8):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)
    put_6(self, _6)
    put_7(self, _7)
    put_8(self, _8)


def init_10(self, _0, _1, _2, _3, _4, _5, _6, _7, _8, _9):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)
    put_6(self, _6)
    put_7(self, _7)
    put_8(self, _8)
    put_9(self, _9)


def init_11(self, _0, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)
    put_6(self, _6)
    put_7(self, _7)
    put_8(self, _8)
    put_9(self, _9)
    put_10(self, _10)


def init_12(self, _0, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11):
    put_0(self, _0)
    put_1(self, _1)
    put_2(self, _2)
    put_3(self, _3)
    put_4(self, _4)
    put_5(self, _5)
    put_6(self, _6)
    put_7(self, _7)
    put_8(self, _8)
    put_9(self, _9)
    put_10(self, _10)
    put_11(self, _11)


INITIALISERS = (
    init_0,
    init_1,
    init_2,
    init_3,
    init_4,
    init_5,
    init_6,
    init_7,
    init_8,
    init_9,
    init_10,
    init_11,
    init_12,
)
"""By their number of fields."""
