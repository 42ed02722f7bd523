"""Objects to shards.

::

    _pack            pack(): the plan, what is there of it, making the rest, the index
    ├── _plan        which objects go into which shard; _names, _labels. Pure
    ├── _state       beside the shards: whose they are, records of what is finished
    ├── _workers     who makes them: this process, others (_worker_process, _messages), a Ray cluster
    └── _shards      making them
        ├── _fetch   objects in order, many requests under way
        ├── _samples objects to samples to what a format holds
        └── _verify  reading a shard again
    _options         what was asked for, as it goes to workers
"""

from s3dataset._pack._pack import PackSummary, left_out_text, pack, pack_with_summary

__all__ = ["PackSummary", "left_out_text", "pack", "pack_with_summary"]
