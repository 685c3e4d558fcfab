"""A guest under a debugger: stopped, looked into and changed (`inspector`), and gdb's protocol over that."""
