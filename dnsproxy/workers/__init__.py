"""``serve.workers`` above 1: several processes answer on the same addresses.

    control ── nursery ──┬── worker 1     each worker: its own sockets (SO_REUSEPORT),
       └─────────────────┼── worker 2     engine and cache, and a socket pair to the
                         └── ...          control process

The control process (the one that was started) learns, judges, verifies, keeps the state file
and has the admin endpoint; it answers no queries. The nursery makes workers by fork: it has
one thread and no event loop, so a fork there is safe at any time. Workers answer from the
last table that they were given, whatever becomes of the control process, but for its end:
then the kernel ends them.
"""
