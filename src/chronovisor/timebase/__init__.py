"""Time itself: time types, clocks, a core's timebase and TBU40, the offset's switch, decrementers, moves."""
