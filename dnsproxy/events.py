"""The register of log events: what each one means, how loud it is, and the facts it carries.

Operators match on these names, so they are as stable as a metric's. ``tests/test_layout.py`` keeps this
register and the calls in the source in step; ``docs/reference/log-events.md`` is made from it.
"""

from __future__ import annotations

from typing import NamedTuple


class Event(NamedTuple):
    """One event. ``fields`` are the keys of its facts, each explained in `eventfields`.

    With ``per`` the same event with the same values of these fields is logged once a minute at the
    most, the rest counted (see `core.repeats`). Without it, which is for what happens once for each
    change, all are logged.
    """

    level: str
    meaning: str
    fields: tuple[str, ...] = ()
    per: tuple[str, ...] | None = None


EVENTS = {
    # -- both daemons
    "program.callback_failed": Event(
        "error",
        "A mistake of this program while it served a socket or a timer; it goes on.",
        ("detail", "reason", "exception"),
        ("detail", "reason"),
    ),
    "program.library_message": Event(
        "warning",
        "A library reports a fault; `aiohttp.server` also each request that is not HTTP.",
        ("library", "detail", "reason", "exception"),
        ("library", "reason"),
    ),
    "task.failed": Event(
        "error",
        "A background task has failed. It starts again in `restart_in` seconds; all others continue.",
        ("task", "detail", "restart_in", "exception"),
        ("task", "detail"),
    ),
    # -- the proxy
    "proxy.started": Event("info", "It answers queries.", ("version", "listen", "tls", "names", "serial")),
    "proxy.draining": Event("info", "It ends after so many seconds, and answers until then.", ("seconds",)),
    "proxy.stopped": Event("info", "All listeners are closed and what was learned is on disk."),
    "admin.open": Event(
        "warning",
        "The admin endpoint is open to other hosts and asks for no token.",
        ("listen", "advice"),
    ),
    "http.connection_refused": Event(
        "warning",
        "The admin or helper endpoint has too many connections, in total or of this client; once a minute.",
        ("listener", "client", "connections"),
    ),
    # -- the service manager, and another configuration
    "service.user": Event("info", "Root was given up for this user.", ("user", "uid", "gid")),
    "service.socket_missing": Event(
        "warning",
        "The service manager gave no socket for this address, which is bound directly: a socket unit "
        "failed or lacks it. What clients send during a restart is lost there.",
        ("listen",),
    ),
    "service.unwell": Event(
        "error", "No query is answered; the service manager hears nothing until one is.", ("detail",)
    ),
    "config.reloaded": Event(
        "info",
        "Another configuration, or a changed file that it names, is in force.",
        ("file", "changed_keys", "changed_files"),
    ),
    "config.unchanged": Event(
        "info",
        "A reload found the settings in force, and the files that they name as they were: nothing was done.",
        ("file",),
    ),
    "config.not_taken": Event(
        "error", "What keeps a configuration from being taken; the one before stays.", ("problem",)
    ),
    "config.doubtful": Event("warning", "What a configuration says and may not mean.", ("problem",)),
    "config.needs_restart": Event(
        "warning", "A key that has changed and cannot while the program runs.", ("key", "reason")
    ),
    "config.reload_crashed": Event(
        "error", "A mistake of this program; the configuration is the one before.", ("file", "exception")
    ),
    "resolvers.changed": Event(
        "info", "resolv.conf names other servers, which `system` means from now on.", ("resolvers",)
    ),
    "resolvers.not_followed": Event(
        "warning",
        "resolv.conf cannot be read, or its servers cannot be used; those before stay.",
        ("reason",),
        ("reason",),
    ),
    # -- what was learned
    "canary.started": Event(
        "info",
        "A new set of addresses is on trial; with `group` this proxy answers with it.",
        ("name", "old", "new", "group"),
    ),
    "canary.promoted": Event(
        "info", "A set on trial is answered by all from now on.", ("name", "new", "reason")
    ),
    "canary.rolled_back": Event(
        "warning",
        "A set on trial is refused until another one comes.",
        ("name", "new", "reason", "detail"),
    ),
    "canary.withdrawn": Event(
        "info", "A set on trial is not what is learned, or ordered, any more.", ("name", "new")
    ),
    "learned.loaded": Event("info", "The state file gave the last known good.", ("names", "serial")),
    "learned.not_kept": Event(
        "warning", "What was learned is not valid by the configuration that is in force now.", ("reason",)
    ),
    "learned.state_unreadable": Event(
        "error", "The state file cannot be read; it is kept under another name.", ("file", "reason")
    ),
    "learned.state_rejected": Event(
        "warning", "A part of the state file cannot be used; the other parts are used.", ("detail",)
    ),
    "learned.state_set_aside": Event(
        "warning", "A damaged file was kept under another name.", ("file", "kept_as")
    ),
    "learned.state_set_aside_failed": Event(
        "error", "A damaged file could not be kept under another name.", ("file", "reason")
    ),
    "learned.state_write_failed": Event(
        "error",
        "The state file cannot be written: a restart would forget what came last. Tried again.",
        ("file", "reason"),
    ),
    "learned.state_written": Event("info", "The state file can be written again.", ("file",)),
    "learned.source_failed": Event(
        "warning", "A source could not be read; what is known goes on being answered.", ("source", "reason")
    ),
    "learned.source_recovered": Event("info", "A source is well again.", ("source",)),
    "learned.source_crashed": Event(
        "error", "A mistake of this program while pulling; tried again.", ("source", "exception"), ("source",)
    ),
    "learned.rejected": Event(
        "warning",
        "A snapshot was not taken.",
        ("source", "reason", "serial", "detail"),
        ("source", "reason"),
    ),
    "learned.swapped": Event(
        "info", "A snapshot with other addresses was taken.", ("issuer", "serial", "changed", "changes")
    ),
    "learned.refreshed": Event("debug", "A snapshot confirmed what is known.", ("issuer", "serial")),
    "learned.kept": Event(
        "warning",
        "A snapshot has no addresses for names that have some; these stay.",
        ("issuer", "serial", "names"),
        ("issuer", "names"),
    ),
    "learned.file_not_followed": Event(
        "warning",
        "The kernel tells nothing of a file that is a source: a change is seen at the next pull only.",
        ("file", "reason"),
    ),
    "learned.foreign_names": Event(
        "warning",
        "A snapshot has names that are not configured here; they are not used.",
        ("issuer", "names"),
    ),
    "learned.refused": Event(
        "warning", "Addresses of a name cannot be right and are not answered.", ("name", "count", "addresses")
    ),
    "learned.refused_no_more": Event("info", "No address of the name is refused any more.", ("name",)),
    "learned.in_service": Event("info", "From now on other addresses are answered.", ("changed", "changes")),
    "learned.reachable": Event(
        "info", "An address answers probes again.", ("name", "address", "serving", "reason")
    ),
    "learned.unreachable": Event(
        "warning",
        "An address does not answer probes.",
        ("name", "address", "serving", "reason"),
    ),
    "learned.probe_crashed": Event(
        "error",
        "A mistake of this program while probing; it counts as no result.",
        ("name", "address", "exception"),
        ("name", "address"),
    ),
    "learned.orders": Event(
        "info", "An operator's order is in force.", ("pinned", "frozen", "rolled_back_to")
    ),
    "learned.hook_done": Event(
        "info", "The program of `learn.on_change` has run.", ("program", "seconds", "output")
    ),
    "learned.hook_failed": Event(
        "warning",
        "The program of `learn.on_change` failed, or could not be started.",
        ("program", "reason", "seconds", "output"),
        ("program", "reason"),
    ),
    # -- upstreams
    "upstream.up": Event("info", "An upstream answers again.", ("upstream",)),
    "upstream.down": Event("warning", "An upstream has failed several times in a row.", ("upstream",)),
    "upstream.loop": Event("warning", "An upstream leads back to this proxy and is left out.", ("upstream",)),
    "upstream.unreachable": Event(
        "warning",
        "No connection to an upstream over TCP, TLS or HTTPS.",
        ("upstream", "reason", "detail"),
        ("upstream", "reason", "detail"),
    ),
    "upstream.source_unusable": Event(
        "warning",
        "This host cannot send from `forward.source` now: upstreams fail until it can.",
        ("source", "reason"),
    ),
    "upstream.replies_guessed": Event(
        "warning",
        "Somebody guesses at the ids of open questions; they go over TCP.",
        ("upstream", "count"),
        ("upstream",),
    ),
    "upstream.bad_reply": Event("debug", "An upstream's HTTP reply is of no use.", ("detail",), ("detail",)),
    # -- listeners
    "host.exhausted": Event(
        "error",
        "This host has no descriptor, port or memory left for a socket. Queries that cannot be forwarded and "
        "refused clients follow from it; upstreams are not to blame.",
        ("use", "reason"),
        ("use", "reason"),
    ),
    "host.refused": Event(
        "error",
        "This host refuses a system call or a packet: a seccomp profile, a security module or a firewall. "
        "Queries that cannot be forwarded follow from it; upstreams are not to blame.",
        ("use", "reason"),
        ("use", "reason"),
    ),
    "host.call_replaced": Event(
        "warning",
        "This host refuses a system call, or does not have it; another one is used, which costs more.",
        ("call", "reason", "instead"),
    ),
    "host.call_refused": Event(
        "error",
        "This host refuses a system call that nothing replaces; the program ends with exit code 3.",
        ("call", "reason"),
    ),
    "tls.certificate_expired": Event(
        "error", "The certificate in use has expired; clients refuse it.", ("file", "not_after")
    ),
    "tls.certificate_loaded": Event("info", "A changed certificate is in use.", ("file",)),
    "tls.certificate_kept": Event(
        "warning", "A changed certificate cannot be used; the old one stays.", ("file", "reason")
    ),
    # -- the logs
    "log.failed": Event(
        "warning",
        "Queries cannot be written down; they are answered all the same.",
        ("log", "target", "reason"),
    ),
    "log.recovered": Event("info", "Queries are written down again.", ("log", "target")),
    "log.records_lost": Event(
        "warning",
        "Records were lost: the log could not be written, or not fast enough. It is written again.",
        ("log", "count"),
    ),
    # -- workers
    "workers.started": Event("info", "All workers answer.", ("pids",)),
    "workers.not_all_flushed": Event(
        "warning", "A worker did not say that it has emptied its cache.", ("answered", "workers")
    ),
    "worker.started": Event(
        "info", "A worker has taken the place of one that ended.", ("worker", "restarts")
    ),
    "worker.ended": Event("error", "A worker has ended by itself.", ("worker", "how", "restart_in")),
    "worker.stuck": Event("error", "A worker says nothing and is being replaced.", ("worker",)),
    "worker.replaced": Event("info", "A worker has a successor, as was asked for, and ends.", ("worker",)),
    "worker.not_changed": Event(
        "error", "A worker did not take a changed configuration and is being replaced.", ("worker", "reason")
    ),
    "workers.not_restarted": Event(
        "warning", "Workers were to be replaced one after another, and not all were.", ("reason",)
    ),
    "worker.killed": Event("warning", "A worker did not end when it was told to.", ("worker",)),
    "worker.bad_message": Event("error", "Nonsense came from another process of this program.", ("reason",)),
    # -- the helper
    "helper.started": Event("info", "The helper looks and publishes.", ("id", "names", "resolvers")),
    "helper.listening": Event("info", "The helper serves its snapshot.", ("address", "port", "tls")),
    "helper.open": Event(
        "warning", "The snapshot is open to other hosts without a token.", ("address", "port", "detail")
    ),
    "helper.stopped": Event("info", "The helper has stopped."),
    "helper.restored": Event("info", "What was published gave the last snapshot.", ("serial", "names")),
    "helper.restore_failed": Event(
        "warning", "What was published cannot be gone on from.", ("file", "reason")
    ),
    "helper.resolved": Event("info", "A name has other addresses.", ("name", "old", "new", "serial")),
    "helper.resolve_failed": Event(
        "warning", "A name does not resolve; its last addresses stay.", ("name", "status", "reasons")
    ),
    "helper.resolver_failed": Event("warning", "A resolver gives no answers.", ("resolver", "reason")),
    "helper.resolver_recovered": Event("info", "A resolver gives answers again.", ("resolver",)),
    "helper.discovered": Event(
        "info",
        "The names that a registry uses: when first discovered, after a change, after a failure.",
        ("registry", "role", "names"),
    ),
    "helper.discover_failed": Event(
        "warning",
        "A registry did not answer, or named a host that is refused; known names are kept.",
        ("registry", "role", "reason", "detail", "kept"),
    ),
    "helper.discover_inconclusive": Event(
        "warning",
        "A registry names no host, and not that clients need none; known names are kept.",
        ("registry", "role", "reason", "detail", "kept"),
    ),
    "helper.discovered_withdrawn": Event(
        "info",
        "For an hour a registry has named another host, or itself, in place of these names.",
        ("registry", "role", "withdrawn"),
    ),
    "helper.discover_crashed": Event(
        "error",
        "A mistake of this program while asking a registry; tried again.",
        ("registry", "exception"),
        ("registry",),
    ),
    "helper.set_refused": Event(
        "warning", "Proxies have rolled back new addresses: all are told to refuse them.", ("name", "new")
    ),
    "helper.set_refused_no_more": Event("info", "They are not refused any more.", ("name", "new")),
    "helper.proxy_unheard": Event(
        "warning",
        "A proxy does not say how new addresses fare; its last word counts.",
        ("proxy", "reason"),
    ),
    "helper.proxy_heard": Event("info", "A proxy says so again.", ("proxy",)),
    "helper.credentials_exposed": Event(
        "warning", "Others can read the file with the registry's password.", ("registry", "detail")
    ),
    "helper.target_unguarded": Event(
        "warning",
        "A store knows no conditional writes: two helpers may write in the same moment.",
        ("target",),
    ),
    "helper.target_unread": Event(
        "warning", "What a target has cannot be read, to go on from it.", ("target", "reason")
    ),
    "helper.target_failed": Event(
        "warning", "A target of `helper.publish` cannot be written; tried again.", ("target", "reason")
    ),
    "helper.target_recovered": Event("info", "A target can be written again.", ("target",)),
    "helper.target_crashed": Event(
        "error",
        "A mistake of this program while it wrote to a target; tried again.",
        ("target", "exception"),
        ("target",),
    ),
    "helper.leader": Event(
        "info",
        "A helper of the group publishes from now on; `own` says whether it is this one.",
        ("leader", "own"),
    ),
    "helper.publish_file_failed": Event("error", "The snapshot cannot be written.", ("file", "reason")),
    "helper.publish_file_written": Event("info", "The snapshot can be written again.", ("file",)),
}
