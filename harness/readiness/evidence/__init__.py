"""Evidence: what was measured, kept so that anyone can recompute the figures from it.

Records and their chain (records.py), appending and reading (writer.py), sealing (sealing.py). Judging a run
folder again and checking it is `readiness.evidence.verify`, which is imported by its own name because it
needs the judge.
"""

from readiness.evidence.records import ClaimFile, Record
from readiness.evidence.writer import EvidenceWriter, read_all, read_claim, read_claim_file

__all__ = ["ClaimFile", "EvidenceWriter", "Record", "read_all", "read_claim", "read_claim_file"]
