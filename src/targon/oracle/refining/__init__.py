"""From documents to passages that are fit to be private inputs: cut, cleaned, judged, and never taken twice.

What isn't fit is refused and counted by its :class:`Reason`; nothing is mended but white space, invisible characters
and a printer's marks. ``cut`` holds the law by which passages are drawn evenly.
"""

from targon.oracle.refining.counts import Counts
from targon.oracle.refining.cut import Cut, cut
from targon.oracle.refining.likeness import Likeness, likeness
from targon.oracle.refining.reasons import Reason
from targon.oracle.refining.refiner import Refiner
from targon.oracle.refining.taken import Taken

__all__ = ["Counts", "Cut", "Likeness", "Reason", "Refiner", "Taken", "cut", "likeness"]
