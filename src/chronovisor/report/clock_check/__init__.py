"""What a guest's console says about the guest's clocks: lines of the program in guests/clockcheck, analysed.

`ClockCheck` takes lines with the times at which they arrived and makes a `Report`. Nothing here reads a
file, a socket or a clock. The console is untrusted: all that is kept of it is bounded.
"""

from __future__ import annotations

from chronovisor.report.clock_check.check import ClockCheck
from chronovisor.report.clock_check.report import Limits, Report

__all__ = ["ClockCheck", "Limits", "Report"]
