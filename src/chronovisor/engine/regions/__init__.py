"""The second tier of native code: hot loops and what they call, each compiled whole."""
