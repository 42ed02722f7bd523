"""Trains on images in S3 with Ray Train; each of Ray's workers is a rank, whose loader reads its share.

python examples/train_ray.py s3://bucket/images/ s3://bucket/run-6 --region us-west-2 --ranks 8 --gpu

On a cluster: `ray submit cluster.yaml examples/train_ray.py s3://bucket/images/ s3://bucket/run-6 --ranks 32 --gpu`, or
in an sbatch file `ray start --head` on the first machine, `ray start --address` on the others, then this program. Ray
starts the ranks again when a machine fails (--failures), and started again the program goes on, with any number of
ranks: from the newest checkpoint in S3, one an epoch.

Images lie as `<prefix>/<label>/<name>.<png or jpg>` and have one size. Needs s3dataset[images,ray], and pandas and
pyarrow for Ray Train.
"""

import argparse
import tempfile
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

import s3dataset
from s3dataset.transforms import Image, LabelFromKey, Pair


def train(config: dict[str, Any]) -> None:
    """What each rank does. Ray has made the process group: loader and manager find it by themselves."""
    images = s3dataset.Manifest.from_prefix(config["images"], pattern="**/*.{png,jpg,jpeg}", region=config["region"])
    classes = sorted({images.key(index).split("/")[-2] for index in range(len(images))})
    dataset = s3dataset.S3MapDataset.from_manifest(
        images, region=config["region"], transform=Pair(Image(output="tensor"), LabelFromKey(classes=classes))
    )
    loader = s3dataset.DataLoader(dataset, config["batch_size"], shuffle=True, num_workers=config["loader_workers"])

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, len(classes))
    )
    model = ray.train.torch.prepare_model(network)  # on its device, in DistributedDataParallel
    device = ray.train.torch.get_device()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    with s3dataset.CheckpointManager(config["run"], region=config["region"]) as manager:
        restored = manager.restore(map_location=device)
        epoch = step = 0
        if restored is not None:
            network.load_state_dict(restored.state["model"])
            optimizer.load_state_dict(restored.state["optimizer"])
            loader.load_state_dict(restored.dataset_state)
            step, epoch = restored.step, restored.metadata["epoch"]
        first_step = step
        while epoch < config["epochs"]:
            for inputs, labels in loader:
                loss = nn.functional.cross_entropy(model(inputs.to(device).float() / 255 - 0.5), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            epoch += 1
            state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
            manager.save_async(step, state, dataset_state=loader.state_dict(), metadata={"epoch": epoch})
            ray.train.report({"epoch": epoch, "step": step, "loss": loss.item()})
            if ray.train.get_context().get_world_rank() == 0:
                print(f"steps {first_step + 1} to {step}, epoch {epoch}: loss {loss.item():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("run", help="where checkpoints go")
    parser.add_argument("--region")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
    parser.add_argument("--loader-workers", type=int, default=2, help="of each rank")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="a GPU for each rank")
    parser.add_argument("--failures", type=int, default=3, help="how often Ray starts the ranks again (%(default)s)")
    parser.add_argument("--storage", help="where Ray keeps its own notes: on several machines a folder of all")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        trainer = ray.train.torch.TorchTrainer(
            train,
            train_loop_config=vars(arguments),
            scaling_config=ray.train.ScalingConfig(num_workers=arguments.ranks, use_gpu=arguments.gpu),
            run_config=ray.train.RunConfig(
                storage_path=arguments.storage or folder,
                failure_config=ray.train.FailureConfig(max_failures=arguments.failures),
            ),
        )
        trainer.fit()
    print(f"{arguments.run} has all {arguments.epochs} epochs")


if __name__ == "__main__":
    main()
