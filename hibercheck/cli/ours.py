"""Where the modules of this package are: beside one another, which the import system does not know.

It looks for each of them in eight forms in every place that a module can be in, which for the 180 modules of a check is
a tenth of its whole time.  Here a module is where its package is, or the import system finds it: in an archive, with
byte code elsewhere, or without any.  This is for the process of the command alone, as `hibercheck.cli.late` is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from io import open_code
from marshal import loads
from types import CodeType, ModuleType

# Lib/importlib/_bootstrap_external.py, _code_to_timestamp_pyc(): magic number, flags, modification time and size of the
# source, code.  With flags it is told by something else whether the code is the source's.
_UNFLAGGED = MAGIC_NUMBER + bytes(4)
_HEAD = 16


class _Loader(SourceFileLoader):
    """Reads a module's byte code at once, if it is its source's.

    Args:
        name: The module.
        path: Its source.
        source: What the file system says of that.
        cached: Its byte code.
    """

    def __init__(self, name: str, path: str, source: os.stat_result, cached: str) -> None:
        super().__init__(name, path)
        self._made_of = _UNFLAGGED + b"".join(
            (number & 0xFFFFFFFF).to_bytes(4, "little") for number in (int(source.st_mtime), source.st_size)
        )
        self._cached = cached

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the module; where it is not that simple, as the import system does."""
        try:
            with open_code(self._cached) as file:
                data = file.read()
        except OSError:
            data = b""
        if data.startswith(self._made_of):
            code = loads(memoryview(data)[_HEAD:])  # noqa: S302 - what the import system would load
            if isinstance(code, CodeType) and code.co_filename == self.path:
                return code
        return super().get_code(fullname)


class Finder:
    """Finds the modules of a package; see `importlib.abc.MetaPathFinder`.

    Args:
        package: Its name.
    """

    def __init__(self, package: str) -> None:
        self._within = f"{package}."

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for another package's, and for one that is not simply there."""
        if path is None or not name.startswith(self._within):
            return None
        directory, last = path[0], name.rpartition(".")[2]
        for place, stem in ((directory, last), (f"{directory}/{last}", "__init__")):
            source = f"{place}/{stem}.py"
            try:
                status = os.stat(source)  # noqa: PTH116 - a Path for each takes as long
            except OSError:
                continue
            cached = f"{place}/__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
            spec = ModuleSpec(name, _Loader(name, source, status, cached), origin=source, is_package=place != directory)
            if spec.submodule_search_locations is not None:
                spec.submodule_search_locations.append(place)
            spec.cached = cached
            spec.has_location = True
            return spec
        return None


def load_ours() -> None:
    """Let this package's modules be found so from now on, where byte code is kept as it usually is."""
    if sys.pycache_prefix is None and not sys.flags.optimize:
        sys.meta_path.insert(0, Finder(__name__.partition(".")[0]))
