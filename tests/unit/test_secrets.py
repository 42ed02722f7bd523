"""Credentials as values: which forms are taken, that nothing prints them, and which pickles carry them."""

import base64
import datetime as dt
import gc
import pickle
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context

import pytest

from s3dataset._config import S3ClientConfig
from s3dataset._secrets import AccessKeys, CredentialSource, CustomerKey
from s3dataset.errors import InvalidConfigError

KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/secret", "token")


def provide_keys() -> tuple[str, str, str]:
    return KEYS


class Session:
    """Looks like botocore's and boto3's sessions, which do not pickle."""

    def get_credentials(self) -> "Session":
        return self

    def get_frozen_credentials(self) -> AccessKeys:
        return namedtuple("Frozen", "access_key secret_key token account_id")(*KEYS, None)  # noqa: PYI024

    def __reduce__(self) -> str:
        raise TypeError("sessions do not pickle")


@contextmanager
def starting_a_process() -> Iterator[None]:
    """What multiprocessing does around the pickle that starts a process."""
    context.set_spawning_popen(object())
    try:
        yield
    finally:
        context.set_spawning_popen(None)


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("added", ["\n", "\r\n", "\x00", "\x7f"])
def test_keys_with_control_characters_are_refused_and_not_quoted(position: int, added: str) -> None:
    keys = ["AKIDEXAMPLE", "wJalrXUtnFEMI/secret", "FwoGZXIvYXdz"]
    keys[position] += added
    with pytest.raises(InvalidConfigError, match=r"(key|token) has a control character.* Strip it") as caught:
        AccessKeys.parse(keys)
    assert keys[position].strip() not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        KEYS,
        list(KEYS),
        {"access_key": KEYS[0], "secret_key": KEYS[1], "session_token": KEYS[2]},
        {"aws_access_key_id": KEYS[0], "aws_secret_access_key": KEYS[1], "aws_session_token": KEYS[2]},
        {"AccessKeyId": KEYS[0], "SecretAccessKey": KEYS[1], "SessionToken": KEYS[2]},
        namedtuple("Frozen", "access_key secret_key token account_id")(*KEYS, "123"),  # noqa: PYI024
        AccessKeys(*KEYS),
    ],
)
def test_reads_the_usual_forms(value: object) -> None:
    assert AccessKeys.parse(value) == AccessKeys(*KEYS)


@pytest.mark.parametrize(
    "expiry",
    [
        1_800_000_000,
        "2027-01-15T08:00:00Z",
        dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC),
        dt.datetime.fromisoformat("2027-01-15T08:00"),
    ],
)
def test_reads_the_expiry(expiry: object) -> None:
    keys = AccessKeys.parse({"AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": expiry})
    assert keys.expires_at == 1_800_000_000


@pytest.mark.parametrize("value", ["AKID:secret", ("a",), ("a", ""), (1, 2), {"access_key": "a"}, 3, ("a", "b", 5)])
def test_refuses_other_forms_without_quoting_them(value: object) -> None:
    with pytest.raises(InvalidConfigError, match="give \\(access key, secret key\\)") as caught:
        CredentialSource(value)
    assert "secret'" not in str(caught.value)


@pytest.mark.parametrize("value", [KEYS, provide_keys, Session()])
def test_no_secret_is_printed(value: object) -> None:
    config = S3ClientConfig(credentials=value)
    for text in (repr(config), repr(config.credentials), str(config.credentials), repr(AccessKeys(*KEYS))):
        assert KEYS[1] not in text
        assert KEYS[2] not in text


def test_equal_keys_make_equal_configurations() -> None:
    assert S3ClientConfig(credentials=KEYS) == S3ClientConfig(credentials=KEYS)
    assert hash(S3ClientConfig(credentials=KEYS)) == hash(S3ClientConfig(credentials=KEYS))
    assert S3ClientConfig(credentials=KEYS) != S3ClientConfig(credentials=("other", "keys"))
    assert S3ClientConfig(credentials=provide_keys) == S3ClientConfig(credentials=provide_keys)
    assert S3ClientConfig(credentials=Session()) != S3ClientConfig(credentials=Session())


@pytest.mark.parametrize("value", [KEYS, provide_keys, lambda: KEYS, Session()])
class TestPickles:
    def test_an_ordinary_one_holds_no_key(self, value: object) -> None:
        config = S3ClientConfig(credentials=value)
        data = pickle.dumps(config)
        assert KEYS[1].encode() not in data
        assert b"AKIDEXAMPLE" not in data

    def test_within_the_process_it_finds_the_credentials_again(self, value: object) -> None:
        config = S3ClientConfig(credentials=value)
        assert pickle.loads(pickle.dumps(config)) == config

    def test_elsewhere_it_has_none(self, value: object) -> None:
        data = pickle.dumps(S3ClientConfig(credentials=value, part_size=9 << 20))
        # The only holder is gone: as good as another process.
        restored = pickle.loads(data)
        assert restored.credentials is None
        assert restored.part_size == 9 << 20

    def test_the_one_that_starts_a_process_carries_keys_that_work(self, value: object) -> None:
        with starting_a_process():
            data = pickle.dumps(S3ClientConfig(credentials=value))
        restored = pickle.loads(data)
        assert isinstance(restored.credentials, CredentialSource)
        assert restored.credentials.load() == AccessKeys(*KEYS)

    def test_what_comes_back_from_that_process_finds_the_first_credentials(self, value: object) -> None:
        config = S3ClientConfig(credentials=value)
        with starting_a_process():
            data = pickle.dumps(config)
        there = pickle.loads(data)  # the same process here, so this is `config` already
        assert pickle.loads(pickle.dumps(there)) == config


def test_a_callable_that_pickles_travels_itself() -> None:
    with starting_a_process():
        data = pickle.dumps(S3ClientConfig(credentials=provide_keys))
    assert pickle.loads(data).credentials.kind == "callable"


class TestCustomerKey:
    """A key of the user's that objects are encrypted with."""

    KEY = bytes(range(32))

    def test_bytes_and_base64_are_the_same_key(self) -> None:
        one, other = CustomerKey(self.KEY), CustomerKey(base64.b64encode(self.KEY).decode())
        assert (one, hash(one)) == (other, hash(other))
        assert one != CustomerKey(bytes(32))
        names = [name for name, _ in one.headers(of_copy_source=True)]
        assert names[1] == "x-amz-copy-source-server-side-encryption-customer-key"

    def test_nothing_prints_it(self) -> None:
        config = S3ClientConfig(sse_customer_key=self.KEY)
        shown = f"{config!r} {config} {CustomerKey(self.KEY)!r} {config.__dict__}"
        assert base64.b64encode(self.KEY).decode() not in shown
        assert repr(self.KEY)[2:-1] not in shown

    def test_only_the_pickle_that_starts_a_process_carries_it(self) -> None:
        config = S3ClientConfig(sse_customer_key=self.KEY)
        assert self.KEY not in pickle.dumps(config)
        with starting_a_process():
            assert self.KEY in pickle.dumps(config)

    def test_in_the_same_process_a_pickle_finds_it_again(self) -> None:
        config = S3ClientConfig(sse_customer_key=self.KEY)
        assert pickle.loads(pickle.dumps(config)) == config

    def test_elsewhere_it_is_missed_by_name(self) -> None:
        key = CustomerKey(self.KEY)
        data = pickle.dumps(S3ClientConfig(sse_customer_key=key))
        del key
        gc.collect()
        config = pickle.loads(data)
        with pytest.raises(InvalidConfigError, match="stayed in the process"):
            config.sse_customer_key.headers()
