"""How well an edit worked: metrics, comparisons of methods on the same probes, and the published data sets.

found = compare(lm, [edit], [base(), weights("r-rome"), memory("ike", embedder)], world)
found.row("r-rome").cells["efficacy"]         # Cell(value=1.0, low=1.0, high=1.0, n=2)
"""

from evaluation.compare import compare
from evaluation.report import Cell, Comparison, ProbeResult, Row

__all__ = ["Cell", "Comparison", "ProbeResult", "Row", "compare"]
