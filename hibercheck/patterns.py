"""Regular expressions that are compiled when they are first used: a check uses a quarter of those that it imports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import AnyStr

    def pattern(text: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
        """Return a pattern; whether it is one is only known when it is used."""
        ...

else:

    class pattern:  # noqa: N801 - for its callers a function
        """As `re.compile`."""

        def __init__(self, text: str | bytes, flags: int = 0) -> None:
            self._given = text, flags

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as of a pattern
            """Compile it, and remember what is asked for."""
            found = getattr(re.compile(*self._given), name)
            setattr(self, name, found)
            return found
