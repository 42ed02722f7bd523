"""What the tests save."""

import io

import torch

from s3dataset import S3Client

URI = "s3://models/model.pt"
MIB = 1 << 20


def file_of(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def stored():
    return S3Client("us-east-1").get_object("models", "model.pt").read()


def views():
    base = torch.randn(1000, 20)
    return {
        "base": base,
        "rows": base[10:20],
        "flat": base.view(-1),
        "tied": base,
        "parameter": torch.nn.Parameter(base),
    }


class Sub(torch.Tensor):
    pass


def large():
    return {"a": torch.randn(3 * MIB), "small": torch.arange(5), "b": torch.randn(2 * MIB + 1), "empty": torch.empty(0)}
