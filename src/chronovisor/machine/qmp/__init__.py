"""QMP, the QEMU Machine Protocol: the monitor that scripts know, for what there is here of what they ask for.

`schema` is the notation in which commands, types and events are declared, `declarations` are those of ours,
and `reference` makes their documentation. `json_stream`, `session` and `server` are the protocol.
"""
