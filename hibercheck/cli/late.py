"""Modules that libraries import and a run hardly ever uses: they are loaded when something of them is used.

`importlib.util.LazyLoader` would do, if it did not load a module as soon as a second library imports it.  This is for
the process of the command alone: whoever calls the interface has imports of his own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

LATE = frozenset(
    {
        "inspect",  # by click and dataclasses, with ast, dis and tokenize: a third of what they take
        "ipaddress",  # by urllib.parse, and so pathlib
        "fnmatch",  # by pathlib
        "hashlib",  # by construct: it loads OpenSSL
        "pdb",  # by construct, with bdb, cmd, code and pprint
        "pickle",  # by construct
        "shlex",  # by whatever may advise a command
        "textwrap",  # by click, for help
        "datetime",  # for what a report tells of times
        "uuid",  # for what it tells of file systems: it loads platform, which compiles nine patterns
        "traceback",  # by construct, and to show what should not happen
    }
)
LATE_OF = "iced_x86."
"""What is in this package is late as well: forty modules of numbers, of which some are used."""
BUT = frozenset({"iced_x86._iced_x86_py", "iced_x86.Mnemonic", "iced_x86.Register"})
"""What is no Python, and those of which all names are wanted."""

_LOADING = "__late_loading__"
_lock = RLock()


class _LateModule(ModuleType):
    """A module of which nothing is there yet but what the import system gives it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        """Load the module when the first name of it is asked for."""
        with _lock:  # other threads wait until it is whole
            spec = self.__spec__
            if name == _LOADING or (type(self) is _LateModule and hasattr(self, _LOADING)) or spec is None:
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
            if type(self) is _LateModule:
                setattr(self, _LOADING, True)
                loader: Any = spec.loader
                loader.loader.exec_module(self)
                delattr(self, _LOADING)
                _become(self, ModuleType)
        return getattr(self, name)


def _become(module: Any, kind: type[ModuleType]) -> None:  # noqa: ANN401 - what changes its class has no type
    module.__class__ = kind


class _LateLoader:
    """Loads nothing at first, where the loader that it is given would."""

    def __init__(self, loader: Any) -> None:  # noqa: ANN401 - importlib.abc.Loader, whose import is dear
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the module load itself."""
        _become(module, _LateModule)


class _Late:
    """Finds the modules of `LATE` and `LATE_OF`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a module is, to be loaded late; None for any other."""
        late = name in LATE or (name.startswith(LATE_OF) and name not in BUT)
        found = PathFinder.find_spec(name, path, target) if late else None
        if found is not None and found.loader is not None:
            loader: Any = _LateLoader(found.loader)
            found.loader = loader
        return found


def load_late() -> None:
    """Let the modules of `LATE` be loaded when they are used, from now on and for the whole process."""
    sys.meta_path.insert(0, _Late)
