"""Which addresses are answered for each managed name. Decides only: no I/O, no clock.

Read in this order: `table` (what helpers state, what is answered), `filter` and `health` (one address),
`canary` (a trial of new addresses), `overrides` (pin, freeze, history), `name_state` (the rules of one name)
and `lifecycle` (the state machine of all names). `state_file` gives the state its form on disk;
`change_event` describes a change to the operator's program. The rules are those of docs/concepts.md.
"""
