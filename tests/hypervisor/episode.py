"""What a history is made of: episodes, each a story that goes well, and goes wrong without one guard."""

from __future__ import annotations

from typing import ClassVar

import pytest


class Episode:
    """A mistake that was made once: a story of what must hold, and `without` what makes it hold."""

    goes_wrong: ClassVar[str]
    """What the story complains of then."""

    def story(self) -> None:
        """Go through it; AssertionError where it goes wrong."""
        raise NotImplementedError

    def without(self, patch: pytest.MonkeyPatch) -> None:
        """Take the guard out."""
        raise NotImplementedError

    def test_it_holds(self) -> None:
        self.story()

    def test_it_goes_wrong_without_its_guard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.without(monkeypatch)
        with pytest.raises(AssertionError, match=self.goes_wrong):
            self.story()
