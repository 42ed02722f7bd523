"""Which checkpoints there are below a URI: commit records, pins, retention. Without torch, and without ranks.

::

    Catalog             reads and writes commit records, lists and deletes files
    ├── Layout          what lies where; names only
    ├── CommitRecord    what makes files a checkpoint, as JSON
    └── put_if          conditional writes, and stores that have none
    Marks               pins, and who restores what
    Pruner              deletes what is beyond the retention (expendable), and what crashes have left
    find_damage         whether the files are those that were committed
"""

from s3dataset._commits._catalog import Catalog, Committed, Entry
from s3dataset._commits._checks import Damage, find_damage, missing_files
from s3dataset._commits._marks import Marks
from s3dataset._commits._names import Attempt, Layout, check_step
from s3dataset._commits._prune import Pruned, Pruner
from s3dataset._commits._record import CommitRecord, StoredObject, check_json
from s3dataset._commits._retention import check_retention, expendable

__all__ = [
    "Attempt",
    "Catalog",
    "CommitRecord",
    "Committed",
    "Damage",
    "Entry",
    "Layout",
    "Marks",
    "Pruned",
    "Pruner",
    "StoredObject",
    "check_json",
    "check_retention",
    "check_step",
    "expendable",
    "find_damage",
    "missing_files",
]
