"""Time itself: time types, host clocks, a core's timebase and TBU40, the offset and its switch, decrementers, handover."""
