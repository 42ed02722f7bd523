"""The demo's pictures: the UCI handwritten digits and the photographs that ship with scikit-learn, as image files."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from s3dataset._demo.place import Place
from s3dataset._uri import S3Uri

BRIGHTEST = 16  # of the pixels as they come


@dataclass(frozen=True, slots=True)
class Picture:
    """One object to be: its key below the demo's prefix, and the file's bytes."""

    key: str
    data: bytes


def digits() -> Iterator[Picture]:
    """The 1,797 digits of 8 x 8 pixels as `images/<label>/<id>.png`."""
    bundle = load_digits()
    pixels = np.rint(bundle.images * (255 / BRIGHTEST)).astype(np.uint8)
    for number, (image, label) in enumerate(zip(pixels, bundle.target, strict=True)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="PNG", optimize=True)
        yield Picture(f"images/{label}/{number:04d}.png", file.getvalue())


def photographs() -> Iterator[Picture]:
    """The two photographs of 640 x 427 pixels, the very JPEG files, as `photographs/<name>.jpg`."""
    for file in sorted(resources.files("sklearn.datasets.images").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".jpg"):
            yield Picture(f"photographs/{file.name}", file.read_bytes())


def decode(data: bytes) -> Image.Image:
    """The picture in a file's bytes."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def upload(place: Place) -> tuple[int, int]:
    """Puts every picture below the place; -> number of objects, and of bytes."""
    client, target = place.client(), S3Uri.parse_prefix(place.uri)
    pictures = [*digits(), *photographs()]
    requests = ((target.bucket, target.key + picture.key, picture.data) for picture in pictures)
    client.put_many(tqdm(requests, "upload", len(pictures), unit=" objects", leave=False, disable=None))
    return len(pictures), sum(len(picture.data) for picture in pictures)
