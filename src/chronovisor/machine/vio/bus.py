"""The bus of a guest's virtual devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.device import VioDevice
from chronovisor.machine.vio.dma_window import DmaWindow


class VioBus:
    """One guest's devices."""

    def __init__(self, devices: Sequence[VioDevice] = ()) -> None:
        self.devices = tuple(devices)
        self._by_unit = {device.unit: device for device in devices}
        self._by_window = {device.window_number: device.window for device in devices}

    def device(self, unit: int) -> VioDevice | None:
        """Return the device at a unit address, or None."""
        return self._by_unit.get(unit)

    def window(self, number: int) -> DmaWindow | None:
        """Return the window of that number (LIOBN), or None."""
        return self._by_window.get(number)

    def reset(self) -> None:
        """Have every device be as when the machine is switched on. No vCPU runs."""
        for device in self.devices:
            device.reset()

    def pause(self) -> None:
        """Have every device finish what it began, and touch the guest no more. No vCPU runs."""
        for device in self.devices:
            device.pause()

    def resume(self) -> None:
        """Let the devices go on; MachineError if one cannot."""
        self.take()
        for device in self.devices:
            device.resume()

    def take(self) -> None:
        """Have what is outside the guest for this guest alone; MachineError if one device cannot."""
        for device in self.devices:
            device.take()

    def flush(self) -> None:
        """Have what is outside the guest up to date; MachineError if that fails. The guest may run."""
        for device in self.devices:
            device.flush()

    def give_up(self) -> None:
        """Let another process have what `take` took, up to date; the devices are paused."""
        for device in self.devices:
            device.give_up()

    def save(self) -> tuple[Any, ...]:
        """Return the devices' states; they are paused."""
        return tuple(device.save() for device in self.devices)

    def load(self, states: Sequence[Any]) -> None:
        """Have the devices go on from saved states.

        MachineError if there are others here than there were. ValueError if a state makes no sense.
        """
        self.check([state.unit for state in states])
        for state in states:
            self._by_unit[state.unit].load(state)

    def check_unchanged(self, states: Sequence[Any]) -> None:
        """MachineError if what is outside the guest was changed since its devices were saved."""
        for state in states:
            self._by_unit[state.unit].check_unchanged(state)

    def check(self, units: Sequence[int]) -> None:
        """MachineError if a guest with devices at these units cannot be here."""
        for unit in units:
            if unit not in self._by_unit:
                raise MachineError(f"the guest has a device {unit:x} and none is attached here for it")
        for device in self.devices:
            if device.unit not in units:
                raise MachineError(f"{device.describe()} is attached here that the guest does not have")

    def close(self) -> None:
        """Close every device."""
        for device in self.devices:
            device.close()
