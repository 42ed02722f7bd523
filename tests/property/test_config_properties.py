"""Settings of any value work, or are refused as such before anything is sent."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset.errors import InvalidConfigError, S3Exception

NUMBERS = st.one_of(
    st.floats(),
    st.integers(-10, 10),
    st.integers(),
    st.sampled_from([float("inf"), float("nan"), 1e-320, 1e308, 2**31, 2**32, 2**63, 2**64, True]),
)
TEXTS = st.one_of(st.text(st.characters(), max_size=10), st.sampled_from(["", " ", "a\r\nb: c", "\ud800", "é", "\0"]))
PAIRS = st.dictionaries(TEXTS, TEXTS, max_size=12)
FIELDS = {
    "throughput_target_gbps": NUMBERS,
    "part_size": NUMBERS,
    "max_attempts": st.one_of(NUMBERS, st.just(1)),
    "memory_limit_bytes": NUMBERS,
    "max_connections": NUMBERS,
    "connect_timeout_s": NUMBERS,
    "first_byte_timeout_s": NUMBERS,
    "stall_timeout_s": NUMBERS,
    "retry_max_elapsed_s": NUMBERS,
    "addressing_style": st.one_of(TEXTS, st.sampled_from(["auto", "path", "virtual"])),
    "checksum": st.one_of(TEXTS, st.sampled_from(["CRC64NVME", "CRC32C", "CRC32", None])),
    "expected_bucket_owner": TEXTS,
    "storage_class": TEXTS,
    "sse": st.one_of(TEXTS, st.sampled_from(["AES256", "aws:kms"])),
    "kms_key_id": TEXTS,
    "kms_context": PAIRS,
    "bucket_key": st.booleans(),
    "tags": PAIRS,
    "proxy": TEXTS,
    "unsigned": st.booleans(),
    "force_path_style": st.booleans(),
}
SETTINGS = st.fixed_dictionaries({}, optional=FIELDS)


@given(given_settings=SETTINGS)
def test_a_configuration_is_made_or_refused(given_settings: dict[str, object]) -> None:
    try:
        config = S3ClientConfig(**given_settings)  # type: ignore[arg-type]
    except InvalidConfigError:
        return
    assert {config: 1}[config] == 1
    assert pickle.loads(pickle.dumps(config)).is_left_out("part_size") == ("part_size" not in given_settings)
    for name in FIELDS.keys() - given_settings.keys():
        assert config.is_left_out(name)


# Nothing listens there, so that whatever is sent fails at once.
NOWHERE = "http://127.0.0.1:1"


@settings(max_examples=50)
@given(name=st.sampled_from(sorted(FIELDS)), data=st.data())
def test_whoever_uses_it_gets_an_error_that_says_so(name: str, data: st.DataObject) -> None:
    value = data.draw(FIELDS[name])
    usual = {"unsigned": True, "max_attempts": 1, "retry_max_elapsed_s": 1.0}
    try:
        config = S3ClientConfig(**usual | {name: value})  # type: ignore[arg-type]
    except InvalidConfigError:
        return
    client = Client(endpoint=NOWHERE, s3client_config=config)
    with pytest.raises(S3Exception, match=r"."), client.queue() as queue:
        queue.take(queue.put([("bucket", "k", b"x", ())])[0])
    client.close()
