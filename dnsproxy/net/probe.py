"""Run the probes that the life cycle of addresses asks for. No query waits for one.

A probe requests the certificate of the name. Its issuer counts only with a ``ca_file``: clients may trust
authorities that this host does not know, while a certificate for another name means that the address belongs
to another service by now.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from collections.abc import Callable

import structlog

from dnsproxy.authorities import client_context, unjudging_context
from dnsproxy.core.addresses.health import Outcome, Probe, Result
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.errors import StartError
from dnsproxy.net.certname import mismatch
from dnsproxy.settings.learning import VerifySettings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

HTTP = 80
# What this host was short of. Nothing left it, so nothing is known about the address.
_HOST = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# This host would not send it there: no route, no such family, no source address, its own firewall.
_NO_ROUTE = frozenset(
    {
        *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
        *(errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES),
    }
)


class Prober:
    """Connects as ``settings`` say.

    Raises:
        StartError: ``ca_file`` cannot be used.
    """

    def __init__(self, settings: VerifySettings) -> None:
        self._timeout = settings.timeout
        self._judges_signer = settings.ca_file is not None
        try:
            self._context = client_context(settings.ca_file) if self._judges_signer else unjudging_context()
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) else None
            raise StartError(
                f"learn.verify.ca_file: {settings.ca_file}: {reason or 'no usable certificate'}"
            ) from exc

    async def probe(self, probe: Probe) -> Result:
        """Return the result of connecting to every port of ``probe``; raises only when cancelled."""
        ends = await asyncio.gather(*(self._try(probe, port) for port in probe.ports))
        outcomes = [outcome for outcome, _ in ends]
        texts = {port: text for port, (_, text) in zip(probe.ports, ends, strict=True)}
        for outcome in (Outcome.FAILED, Outcome.HOST, Outcome.NO_ROUTE):
            if outcome in outcomes:
                return Result(outcome, texts)
        return Result(Outcome.ANSWERED, texts)

    async def _try(self, probe: Probe, port: int) -> tuple[Outcome, str]:
        server_name = None if port == HTTP else probe.server_name
        try:
            async with asyncio.timeout(self._timeout):
                complaint = await self._connect(probe.address, port, server_name)
        except TimeoutError:  # the kernel's own ETIMEDOUT among them
            return Outcome.FAILED, "timed out"
        except ssl.SSLCertVerificationError as exc:
            return Outcome.FAILED, f"certificate: {exc.verify_message}"
        except ssl.SSLError as exc:
            return Outcome.FAILED, f"TLS: {exc.reason or exc}"
        except OSError as exc:
            return _classify(exc)
        except ValueError as exc:  # a name that TLS cannot carry
            return Outcome.HOST, f"no name for TLS: {exc}"
        return (Outcome.FAILED, complaint) if complaint else (Outcome.ANSWERED, "ok")

    async def _connect(self, address: str, port: int, server_name: str | None) -> str | None:
        context = self._context if server_name is not None else None
        if context is not None:
            # Raises for a name that TLS cannot carry; asyncio would notice with the socket open, and lose it.
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_name)
        _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=server_name)
        try:
            if server_name is None or self._judges_signer:
                return None
            tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return mismatch(tls.getpeercert(binary_form=True) or b"", server_name)
        finally:
            # Nothing was said and nothing is waited for.
            writer.transport.abort()


def _classify(exc: OSError) -> tuple[Outcome, str]:
    # asyncio puts a text of its own in place of the system's.
    text = os.strerror(exc.errno) if exc.errno else str(exc) or type(exc).__name__
    if exc.errno in _HOST:
        return Outcome.HOST, text
    return (Outcome.NO_ROUTE if exc.errno in _NO_ROUTE else Outcome.FAILED), text


class ProbeLoop:
    """Runs the probes of ``state``; ``on_result`` is called after each result. ``prober`` may be replaced."""

    def __init__(self, state: AddressLifecycle, prober: Prober, on_result: Callable[[], None]) -> None:
        self.prober = prober
        self._state = state
        self._on_result = on_result
        self._wake = asyncio.Event()

    def kick(self) -> None:
        """Look again for probes that are due: the sets may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        state = self._state
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                for probe in state.next_probes(time.monotonic()):
                    tasks.create_task(self._carry_out(probe))
                due = state.next_time()
                try:
                    async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _carry_out(self, probe: Probe) -> None:
        try:
            result = await self.prober.probe(probe)
        except asyncio.CancelledError:
            self._state.abandon(probe, time.monotonic())
            raise
        except Exception:  # an internal error must not end the answers to queries
            log.exception("learned.probe_crashed", name=probe.name, address=probe.address)
            result = Result(Outcome.HOST, dict.fromkeys(probe.ports, "an internal error"))
        self._state.record(probe, result, time.monotonic(), time.time())
        self._on_result()
        self._wake.set()
