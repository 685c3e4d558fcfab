"""What the machine inside does with guests, done on the embedded provider: that it can be done."""

from __future__ import annotations

from pathlib import Path

from real_kvm.reports import check_report

from conformance.guests import go_on, run, save, watch


def test_guests_run_are_watched_and_go_on(tmp_path: Path) -> None:
    assert run("embedded", "hello-le.elf")["reason"] == "power off"
    check_report(watch("embedded", "demo-be.elf", smp=2), emulated=False)
    check_report(save("embedded", tmp_path / "saved"), emulated=False)
    check_report(go_on("embedded", tmp_path / "saved"), emulated=False)
