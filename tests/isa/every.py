"""Checks of every instruction. A test for each would cost pytest more time than the checks take."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.instruction import INSTRUCTIONS, Instruction


def of_every_instruction(check: Callable[[Instruction], None]) -> Callable[[], None]:
    """Return a test that checks every instruction, and names those that fail, with the first one's reason."""

    def test() -> None:
        failed: list[tuple[Instruction, Exception]] = []
        for declared in INSTRUCTIONS:
            try:
                check(declared)
            except Exception as error:
                failed.append((declared, error))
        if failed:
            names = [declared.mnemonic for declared, _ in failed]
            raise AssertionError(f"{len(failed)} of {len(INSTRUCTIONS)}: {names}") from failed[0][1]

    assert len(INSTRUCTIONS) > 900
    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test
