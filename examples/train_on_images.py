"""Trains a small network on images that lie in S3 as `<prefix>/<label>/<name>.<png or jpg>`, and saves it there.

python examples/train_on_images.py s3://bucket/images/ s3://bucket/model.pt --region us-west-2
"""

import argparse
from typing import Any

import numpy as np
import torch
from torch import nn

import s3dataset
from s3dataset.transforms import Image, LabelFromKey, Pair


def picture(reader: Any) -> torch.Tensor:
    """A transform: an image of any size as 32 by 32 grey pixels. Put your augmentation here."""
    image = Image(mode="L")(reader)  # Pillow's
    return torch.from_numpy(np.array(image.resize((32, 32))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("checkpoint")
    parser.add_argument("--region")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    images = s3dataset.Manifest.from_prefix(arguments.images, pattern="**/*.{png,jpg,jpeg}", region=arguments.region)
    if not len(images):
        raise SystemExit(f"There are no images below {arguments.images}.")
    classes = sorted({images.key(index).split("/")[-2] for index in range(len(images))})
    dataset = s3dataset.S3MapDataset.from_manifest(
        images,
        region=arguments.region,
        transform=Pair(picture, LabelFromKey(classes=classes)),
    )
    loader = s3dataset.DataLoader(dataset, batch_size=32, shuffle=True, num_workers=arguments.workers)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 128), nn.ReLU(), nn.Linear(128, len(classes))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(arguments.epochs):
        loader.set_epoch(epoch)
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs.to(device).float() / 255), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")

    with s3dataset.S3Checkpoint(region=arguments.region).writer(arguments.checkpoint) as writer:
        torch.save({"model": model.state_dict(), "classes": classes}, writer)
    print(f"saved {arguments.checkpoint}; {loader.stats()}")


if __name__ == "__main__":
    main()
