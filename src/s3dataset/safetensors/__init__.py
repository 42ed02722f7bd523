"""Tensors in safetensors files on S3, with the functions of `safetensors.torch`.

The library itself is not needed: headers are read and written here, and tensors' memory goes to the service and comes
from it without a copy.

::

    load_file, safe_open    weights: a file, or an index and its shards
    ├── files               headers, several at once; whole files
    ├── boxes               parts of tensors
    │   └── slices          which bytes those are (pure)
    └── memory              tensors to fill; pinned buffers before a GPU
    save_file, save_sharded, save_model
    └── format              the header, checked (pure)
"""

from s3dataset.safetensors._lazy import TensorSlice, safe_open
from s3dataset.safetensors._load import load_file
from s3dataset.safetensors._models import load_model, save_model
from s3dataset.safetensors._save import save_file
from s3dataset.safetensors._sharded import save_sharded

__all__ = ["TensorSlice", "load_file", "load_model", "safe_open", "save_file", "save_model", "save_sharded"]
