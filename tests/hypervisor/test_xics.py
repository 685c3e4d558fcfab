"""The interrupt controller: what must hold after any course of calls, and interrupts between real vCPUs."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from chronovisor.engine.hypercalls import LINE_WORD, PlainSharedWords, SharedWords
from chronovisor.hypervisor.xics import IPI, LEAST_FAVORED, XISR, Source, Xics

SERVERS = range(3)
NUMBERS = range(0x1000, 0x1006)


class _Thread:
    def __init__(self) -> None:
        self.shared: SharedWords = PlainSharedWords()


class _Line:
    def __init__(self) -> None:
        self.state = _Thread()

    @property
    def level(self) -> bool:
        return bool(self.state.shared.words[LINE_WORD] & XISR)

    def notice(self) -> None:
        pass


def _controller() -> tuple[Xics, list[_Line]]:
    xics, lines = Xics(), [_Line() for _ in SERVERS]
    for server in SERVERS:
        xics.connect(server, lines[server])
    return xics, lines


def _check(xics: Xics, lines: list[_Line]) -> None:
    """The line says whether an interrupt is shown, which is more favored than CPPR; none that could be shown
    waits.
    """
    for server in SERVERS:
        presenter = xics.presenters[server]
        assert lines[server].level == bool(presenter.xisr)
        if presenter.xisr:
            assert presenter.pending_priority < presenter.cppr
        assert not presenter.lets_in(presenter.mfrr)
    shown = Counter(p.xisr for p in xics.presenters.values() if p.xisr not in (0, IPI))
    for number, source in xics.sources.items():
        assert shown[number] <= 1
        if source.pending and not source.presented and source.priority != LEAST_FAVORED:
            assert not xics.presenters[source.server].lets_in(source.priority)


@pytest.mark.parametrize("seed", range(20))
def test_what_holds_after_every_call(seed: int) -> None:
    draw = random.Random(seed)
    xics, lines = _controller()
    for number in NUMBERS:
        xics.set_source(number, Source(draw.choice(SERVERS), draw.randrange(8), draw.random() < 0.5))
    accepted: list[tuple[int, int]] = []
    done: Counter[str] = Counter()
    for _ in range(600):
        presenter = xics.presenters[server := draw.choice(SERVERS)]
        match draw.randrange(6):
            case 0:
                xics.set_priority(presenter, draw.choice([0, 3, 5, LEAST_FAVORED]))
            case 1:
                xirr = xics.accept(presenter)
                if xirr & 0xFF_FFFF:
                    accepted.append((server, xirr))
                    done["accepted"] += 1
                    if xirr & 0xFF_FFFF == IPI:
                        xics.request(presenter, LEAST_FAVORED)
            case 2 if accepted:
                server, xirr = accepted.pop()
                xics.end(xics.presenters[server], xirr)
                done["ended"] += 1
            case 3:
                xics.request(presenter, draw.choice([2, 5, LEAST_FAVORED]))
            case 4:
                xics.set_line(draw.choice(NUMBERS), draw.random() < 0.6)
            case 5:
                number = draw.choice(NUMBERS)
                source = xics.sources[number]
                if not source.presented:
                    source.server, source.priority = (
                        draw.choice(SERVERS),
                        draw.choice([1, 4, 7, LEAST_FAVORED]),
                    )
                    xics.set_source(number, source)
        _check(xics, lines)
    assert done["accepted"] > 10
    assert done["ended"] > 10


def test_an_edge_is_one_interrupt_however_long_it_was_masked() -> None:
    xics, lines = _controller()
    xics.set_source(0x1000, Source(0))
    xics.set_priority(xics.presenters[0], LEAST_FAVORED)
    for _ in range(3):
        xics.set_line(0x1000, True)
    assert not lines[0].level
    source = xics.sources[0x1000]
    source.priority = 5
    xics.set_source(0x1000, source)
    assert xics.accept(xics.presenters[0]) == 0xFF00_1000
    xics.end(xics.presenters[0], 0xFF00_1000)
    assert not lines[0].level


def test_a_level_comes_again_until_its_line_is_low() -> None:
    xics, lines = _controller()
    xics.set_source(0x1000, Source(0, 5, level_sensitive=True))
    presenter = xics.presenters[0]
    xics.set_priority(presenter, LEAST_FAVORED)
    xics.set_line(0x1000, True)
    for _ in range(2):
        assert xics.accept(presenter) == 0xFF00_1000
        assert not lines[0].level
        xics.end(presenter, 0xFF00_1000)
        assert lines[0].level
    xics.accept(presenter)
    xics.set_line(0x1000, False)
    xics.end(presenter, 0xFF00_1000)
    assert not lines[0].level


def test_a_more_favored_interrupt_takes_the_place_of_one_that_is_shown() -> None:
    xics, _ = _controller()
    for number, priority in ((0x1000, 6), (0x1001, 3)):
        xics.set_source(number, Source(0, priority))
    presenter = xics.presenters[0]
    xics.set_priority(presenter, LEAST_FAVORED)
    xics.set_line(0x1000, True)
    xics.set_line(0x1001, True)
    assert xics.accept(presenter) == 0xFF00_1001
    assert presenter.cppr == 3
    xics.end(presenter, 0xFF00_1001)
    assert xics.accept(presenter) == 0xFF00_1000


def test_a_presenters_state_goes_over() -> None:
    """What a presenter shows, and what waits, is shown again by a controller that takes the state over."""
    xics, _ = _controller()
    xics.set_source(0x1000, Source(1, 5))
    presenter = xics.presenters[1]
    xics.set_priority(presenter, LEAST_FAVORED)
    xics.set_line(0x1000, True)
    xics.request(presenter, 6)
    state = xics.state(1)
    assert state == 0xFF00_1000_0605_0000
    other, lines = _controller()
    other.set_source(0x1000, xics.sources[0x1000])
    other.set_state(1, state)
    assert lines[1].level
    assert other.state(1) == state
    assert other.accept(other.presenters[1]) == 0xFF00_1000
    other.end(other.presenters[1], 0xFF00_1000)
    assert other.accept(other.presenters[1]) == 0xFF00_0002
