"""The end of a `doctor` report: hops that depend on a broken one as one line each, and the verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dnsproxy.ops.doctor_findings import Finding, Result, skip

# Hops and subjects that one line names.
SHOWN = 3


def fold(findings: Sequence[Finding]) -> list[Finding]:
    """Return ``findings`` with all that were skipped for one reason as one, in the place of the first.

    A name whose answer is wrong is skipped at seven further hops, which add nothing to the failure.
    """
    skipped: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.result is Result.SKIP:
            skipped.setdefault(finding.seen, []).append(finding)
    return [
        finding if finding.result is not Result.SKIP else _folded(skipped[finding.seen])
        for finding in findings
        if finding.result is not Result.SKIP or finding is skipped[finding.seen][0]
    ]


def _folded(findings: Sequence[Finding]) -> Finding:
    hops, subjects = ([getattr(f, key) for f in findings] for key in ("hop", "subject"))
    return skip(_listed(hops), _listed(subjects), findings[0].seen)


def verdict(findings: Sequence[Finding]) -> str:
    """Return in one line whether a pull works from here, else where it breaks first."""
    failed = [finding for finding in findings if finding.failed]
    if failed:
        first, more = failed[0], len(failed) - 1
        others = f"; {more} more hops are broken" if more > 1 else "; 1 more hop is broken" if more else ""
        return f"verdict: broken at {first.hop}, {first.subject}: {first.seen}{others}"
    return (
        "verdict: every hop works, but for those that are skipped"
        if any(finding.result is Result.SKIP for finding in findings)
        else "verdict: every hop works"
    )


def _listed(texts: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(texts))
    more = len(distinct) - SHOWN
    return ", ".join(distinct[:SHOWN]) + (f" and {more} more" if more > 0 else "")
