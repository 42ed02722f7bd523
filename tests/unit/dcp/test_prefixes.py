"""Names of the objects of each rank."""

import pickle

import pytest
import torch.distributed as dist

from s3dataset.dcp import (
    BinaryPrefixStrategy,
    DefaultPrefixStrategy,
    HexPrefixStrategy,
    RoundRobinPrefixStrategy,
    S3PrefixStrategyBase,
    S3StorageWriter,
)


@pytest.mark.parametrize(
    ("strategy", "prefixes"),
    [
        (DefaultPrefixStrategy(), ["__0_", "__1_"]),
        (BinaryPrefixStrategy(prefix_count=2), ["0000000000/__0_", "1000000000/__1_", "0000000000/__2_"]),
        (BinaryPrefixStrategy(3, 2, 5), ["000/epoch_3/__0_", "100/epoch_3/__1_", "010/epoch_3/__2_"]),
        (HexPrefixStrategy(0, 1, 17), ["00/epoch_0/__0_", "10/epoch_0/__1_"]),
        (HexPrefixStrategy(), ["0000000000/__0_", "0000000000/__1_"]),
        (RoundRobinPrefixStrategy(["a", "b/c"]), ["a/__0_", "b/c/__1_", "a/__2_"]),
        (RoundRobinPrefixStrategy(["a"], epoch_num=7), ["a/epoch_7/__0_", "a/epoch_7/__1_"]),
    ],
)
def test_prefixes(strategy, prefixes):
    assert [strategy(rank) for rank in range(len(prefixes))] == prefixes
    copy = pickle.loads(pickle.dumps(strategy))
    assert [copy.generate_prefix(rank) for rank in range(len(prefixes))] == prefixes


def test_there_are_as_many_as_ranks_by_default(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 16)
    strategy = HexPrefixStrategy(min_prefix_length=1)
    assert strategy.prefix_map == list("0123456789abcdef")
    assert len({strategy(rank) for rank in range(100)}) == 100


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"epoch_num": "1"}, "Epoch number must be None or an integer"),
        ({"epoch_num": 1.5}, "Epoch number must be None or an integer"),
        ({"min_prefix_length": 0}, "Minimum prefix length must be positive"),
        ({"prefix_count": 0}, "Prefix count must be a positive integer"),
        ({"prefix_count": 1.5}, "Prefix count must be a positive integer"),
    ],
)
@pytest.mark.parametrize("strategy", [BinaryPrefixStrategy, HexPrefixStrategy])
def test_bad_arguments(strategy, arguments, text):
    with pytest.raises(ValueError, match=text):
        strategy(**arguments)


def test_round_robin_needs_prefixes():
    with pytest.raises(ValueError, match="user_prefixes must not be empty"):
        RoundRobinPrefixStrategy([])
    with pytest.raises(ValueError, match="not the one text"):
        RoundRobinPrefixStrategy("prefix")


def test_ones_own():
    class Own(S3PrefixStrategyBase):
        def generate_prefix(self, rank):
            return f"own-{rank}-"

    assert Own()(3) == "own-3-"
    with pytest.raises(TypeError):
        S3PrefixStrategyBase()


@pytest.mark.parametrize("strategy", ["hex", HexPrefixStrategy], ids=["text", "class"])
def test_a_writer_takes_strategies_alone(strategy):
    with pytest.raises(TypeError, match="prefix_strategy must be an instance of"):
        S3StorageWriter("us-east-1", "s3://bucket/run", prefix_strategy=strategy)


def test_a_function_of_the_rank_is_a_strategy():
    writer = S3StorageWriter("us-east-1", "s3://bucket/run", prefix_strategy="own-{}-".format)
    assert writer.prefix_strategy(3) == "own-3-"
