"""What the program knows about knowledge: facts, edits, relations, probes, and the bundled world.

Nothing here imports torch or any other package of ours, so that listing and parsing facts stays instant.
"""

from knowledge.edit import Edit, Fact
from knowledge.errors import PalimpsestError

__all__ = ["Edit", "Fact", "PalimpsestError"]
