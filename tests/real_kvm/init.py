#!/usr/bin/python3.11 -SEI
"""The first process of the machine inside: it makes ready what Python needs, then does what it is told."""

import sys

sys.path[:0] = ["/project/tests", "/project/src", "/project/site"]

from real_kvm.inside import begin  # noqa: E402  the path comes first

begin()
