"""CheckpointManager: saves and restores on all ranks, over the catalog of commit records.

::

    CheckpointManager   save, save_async, restore, list, pin, verify, prune
    ├── Saver           agrees, writes, commits, prunes
    ├── Restorer        chooses, loads, judges, falls back
    ├── Format          torch, dcp, safetensors: a state as files
    ├── Ranks           who decides, and how all hear of it
    └── Background      the thread in which a save is finished
"""

from s3dataset._commits import Damage, Pruned
from s3dataset._manager._background import CheckpointFuture
from s3dataset._manager._manager import CheckpointManager
from s3dataset._manager._types import CheckpointInfo, Restored, Skipped

__all__ = ["CheckpointFuture", "CheckpointInfo", "CheckpointManager", "Damage", "Pruned", "Restored", "Skipped"]
