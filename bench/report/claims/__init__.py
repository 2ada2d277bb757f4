"""The ledger of claims: every quoted number with what was measured of it, from the store alone.

``bench/claims.yaml`` lists the claims, `judge` decides each from result folders, `write` renders the verdicts.
"""

from __future__ import annotations

from bench.report.claims.folders import expand
from bench.report.claims.judge import STATUSES, Status, Verdict, judge
from bench.report.claims.read import Claim, read_claims
from bench.report.claims.render import contents, counts, write

__all__ = ["STATUSES", "Claim", "Status", "Verdict", "contents", "counts", "expand", "judge", "read_claims", "write"]
