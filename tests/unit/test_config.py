"""S3ClientConfig: defaults, what is left out, precedence, and what it refuses."""

import copy
import dataclasses
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3dataset._config import S3ClientConfig, environment, open_session, resolved
from s3dataset.errors import InvalidConfigError

MIB = 1 << 20


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared configuration file that the environment points to."""
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    file.write_text("")
    return file


def resolve(config: S3ClientConfig | None = None, **arguments: str | None):
    config = config or S3ClientConfig()
    return resolved(config, open_session(config.profile), **arguments)


class TestFields:
    def test_the_predecessors_fields_come_first_with_their_defaults(self) -> None:
        parameters = list(inspect.signature(S3ClientConfig).parameters.values())[:7]
        assert [(p.name, repr(p.default)) for p in parameters] == [
            ("throughput_target_gbps", "10.0"),
            ("part_size", str(8 * MIB)),
            ("unsigned", "False"),
            ("force_path_style", "False"),
            ("max_attempts", "10"),
            ("profile", "None"),
            ("requester_pays", "False"),
        ]
        config = S3ClientConfig()
        assert (config.throughput_target_gbps, config.part_size, config.unsigned) == (10.0, 8 * MIB, False)
        assert (config.force_path_style, config.max_attempts, config.profile) == (False, 10, None)
        assert config.requester_pays is False

    def test_is_frozen_hashable_and_compares_by_value(self) -> None:
        config = S3ClientConfig(part_size=16 * MIB)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.part_size = 1  # type: ignore[misc]
        assert {config: 1}[S3ClientConfig(part_size=16 * MIB)] == 1
        assert config != S3ClientConfig()

    def test_the_class_shows_plain_defaults(self) -> None:
        assert S3ClientConfig.part_size == 8 * MIB
        assert S3ClientConfig.unsigned is False

    def test_a_default_given_is_not_a_field_left_out(self) -> None:
        assert S3ClientConfig().is_left_out("max_attempts")
        assert not S3ClientConfig(max_attempts=10).is_left_out("max_attempts")

    def test_replace_keeps_what_was_left_out(self) -> None:
        config = dataclasses.replace(S3ClientConfig(part_size=9 * MIB), profile="train")
        assert config.is_left_out("max_attempts")
        assert not config.is_left_out("part_size")
        assert not config.is_left_out("profile")
        assert not dataclasses.replace(S3ClientConfig(), max_attempts=3).is_left_out("max_attempts")

    def test_repr_shows_what_was_given(self) -> None:
        assert repr(S3ClientConfig(part_size=9, unsigned=True)) == "S3ClientConfig(part_size=9, unsigned=True)"

    @pytest.mark.parametrize("copied", [lambda c: pickle.loads(pickle.dumps(c)), copy.copy, copy.deepcopy])
    def test_copies_are_equal_and_remember_what_was_left_out(self, copied) -> None:
        config = S3ClientConfig(part_size=9 * MIB, addressing_style="path")
        other = copied(config)
        assert other == config
        assert hash(other) == hash(config)
        assert other.is_left_out("max_attempts")


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"max_attempts": 0}, "max_attempts must be at least 1"),
            ({"max_attempts": "3"}, "max_attempts must be a whole number, not '3'"),
            ({"part_size": "8MB"}, "part_size must be a whole number, not '8MB'"),
            ({"part_size": 8e6}, "part_size must be a whole number, not 8000000.0"),
            ({"stall_timeout_s": "15"}, "stall_timeout_s must be a number, not '15'"),
            ({"part_size": None}, "part_size must be a whole number, not None"),
            ({"max_attempts": None}, "max_attempts must be a whole number, not None"),
            ({"throughput_target_gbps": None}, "throughput_target_gbps must be a number, not None"),
            ({"retry_max_elapsed_s": None}, "retry_max_elapsed_s must be a number, not None"),
            ({"unsigned": None}, "unsigned must be True or False, not None"),
            ({"force_path_style": "no"}, "force_path_style must be True or False, not 'no'"),
            ({"ca_bundle": 3}, "ca_bundle must be a path or PEM text as bytes, not 3"),
            ({"proxy": 3128}, "proxy must be a URL, not int"),
            ({"requester_pays": True, "unsigned": True}, "requester_pays with unsigned"),
            ({"credentials": ("a", "b"), "unsigned": True}, "credentials with unsigned"),
            ({"addressing_style": "dns"}, "addressing_style must be one of auto, path, virtual, not 'dns'"),
            ({"force_path_style": True, "addressing_style": "virtual"}, "contradict each other"),
            ({"checksum": "MD5"}, "checksum must be one of CRC64NVME, CRC32C, CRC32, None"),
            ({"throughput_target_gbps": 0}, "throughput_target_gbps must be greater than 0"),
            ({"part_size": 0}, "part_size must be greater than 0"),
            ({"max_connections": 0}, "max_connections must be greater than 0"),
            ({"stall_timeout_s": -1.0}, "stall_timeout_s must be greater than 0"),
            ({"sse": "DES"}, "sse must be one of AES256, aws:kms, aws:kms:dsse"),
            ({"sse": "AES256", "kms_key_id": "k"}, "uses no KMS key"),
            ({"sse_customer_key": bytes(32), "kms_key_id": "k"}, "contradict each other"),
            ({"sse_customer_key": bytes(31)}, "must be 32 bytes"),
            ({"sse_customer_key": "not base64"}, "must be 32 bytes"),
            ({"tags": {str(i): "" for i in range(11)}}, "at most 10 tags"),
        ],
    )
    def test_values_that_cannot_work(self, fields: dict, says: str) -> None:
        with pytest.raises(ValueError, match=says) as caught:
            S3ClientConfig(**fields)
        assert isinstance(caught.value, InvalidConfigError)

    @pytest.mark.parametrize("value", [1, 0, np.True_, np.False_])
    def test_switches_are_true_or_false_however_they_are_written(self, value: Any) -> None:
        config = S3ClientConfig(unsigned=value, force_path_style=value)
        assert config.unsigned is config.force_path_style is bool(value)
        assert config == S3ClientConfig(unsigned=bool(value), force_path_style=bool(value))

    def test_an_odd_part_size_is_the_uploads_affair(self) -> None:
        assert S3ClientConfig(part_size=756).part_size == 756

    def test_an_unknown_profile_names_those_that_there_are(self, profiles: Path) -> None:
        profiles.write_text("[profile train]\nregion = eu-west-1\n")
        with pytest.raises(InvalidConfigError, match=r"missing.*train"):
            open_session("missing")

    def test_a_ca_bundle_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfigError, match=r"nowhere\.pem.*cannot be read"):
            resolve(S3ClientConfig(ca_bundle=tmp_path / "nowhere.pem"))

    def test_attempts_of_the_environment_that_are_no_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "many")
        with pytest.raises(InvalidConfigError, match="AWS_MAX_ATTEMPTS"):
            resolve()
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "0")
        with pytest.raises(InvalidConfigError, match=r"AWS_MAX_ATTEMPTS.*at least 1"):
            resolve()


class TestPrecedence:
    """Argument before environment before profile before default."""

    def test_region(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve().region is None
        profiles.write_text("[default]\nregion = eu-west-1\n")
        assert resolve().region == "eu-west-1"
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
        assert resolve().region == "eu-west-2"
        monkeypatch.setenv("AWS_REGION", "eu-west-3")
        assert resolve().region == "eu-west-3"
        assert resolve(region="ap-south-1").region == "ap-south-1"

    def test_endpoint(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve().endpoint is None
        profiles.write_text("[default]\nendpoint_url = http://of.profile\n")
        assert resolve().endpoint == "http://of.profile"
        profiles.write_text(
            "[default]\nservices = own\nendpoint_url = http://x\n[services own]\ns3 =\n  endpoint_url = http://s3\n"
        )
        assert resolve().endpoint == "http://s3"
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://of.environment")
        assert resolve().endpoint == "http://of.environment"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://of.s3")
        assert resolve().endpoint == "http://of.s3"
        assert resolve(endpoint="http://given").endpoint == "http://given"
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
        assert resolve().endpoint is None
        assert resolve(endpoint="http://given").endpoint == "http://given"

    def test_attempts(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve().max_attempts == 10
        profiles.write_text("[default]\nmax_attempts = 4\n")
        assert resolve().max_attempts == 4
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
        assert resolve().max_attempts == 5
        assert resolve(S3ClientConfig(max_attempts=10)).max_attempts == 10

    def test_profile(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        profiles.write_text("[profile a]\nregion = eu-west-1\n[profile b]\nregion = eu-west-2\n")
        monkeypatch.setenv("AWS_PROFILE", "a")
        assert resolve().region == "eu-west-1"
        assert resolve(S3ClientConfig(profile="b")).region == "eu-west-2"

    def test_addressing_style(self, profiles: Path) -> None:
        assert resolve().addressing_style == "auto"
        profiles.write_text("[default]\ns3 =\n  addressing_style = path\n")
        assert resolve().addressing_style == "path"
        assert resolve(S3ClientConfig(addressing_style="virtual")).addressing_style == "virtual"
        assert resolve(S3ClientConfig(force_path_style=False)).addressing_style == "auto"
        profiles.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
        assert resolve(S3ClientConfig(force_path_style=True)).addressing_style == "path"

    def test_ca_bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.pem").write_bytes(b"of environment")
        (tmp_path / "b.pem").write_bytes(b"given")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "a.pem"))
        assert resolve().ca_bundle == b"of environment"
        assert resolve(S3ClientConfig(ca_bundle=tmp_path / "b.pem")).ca_bundle == b"given"
        assert resolve(S3ClientConfig(ca_bundle=b"text itself")).ca_bundle == b"text itself"

    def test_checksum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert resolve().checksum == "CRC64NVME"
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        assert resolve().checksum is None
        assert resolve(S3ClientConfig(checksum="CRC32C")).checksum == "CRC32C"
        monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
        assert resolve(S3ClientConfig(checksum=None)).checksum is None

    def test_dual_stack_and_fips(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert (resolve().use_dualstack, resolve().use_fips) == (False, False)
        profiles.write_text("[default]\nuse_dualstack_endpoint = true\n")
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
        assert (resolve().use_dualstack, resolve().use_fips) == (True, True)

    def test_dual_stack_of_s3_alone(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        profiles.write_text("[default]\nuse_dualstack_endpoint = true\ns3 =\n  use_dualstack_endpoint = false\n")
        assert resolve().use_dualstack is False
        monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
        assert resolve().use_dualstack is True
        profiles.write_text("[default]\ns3 =\n  use_dualstack_endpoint = true\n")
        monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "false")
        assert resolve().use_dualstack is False

    def test_acceleration(self, profiles: Path) -> None:
        assert resolve().use_accelerate is False
        profiles.write_text("[default]\ns3 =\n  use_accelerate_endpoint = true\n  addressing_style = path\n")
        settings = resolve()
        assert (settings.use_accelerate, settings.addressing_style) == (True, "auto")
        settings = resolve(S3ClientConfig(addressing_style="path"))
        assert (settings.use_accelerate, settings.addressing_style) == (False, "path")
        assert resolve(S3ClientConfig(addressing_style="auto")).use_accelerate is True

    def test_arns_and_sessions(self, profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert (resolve().use_arn_region, resolve().use_express_sessions) == (True, True)
        profiles.write_text("[default]\ns3_disable_express_session_auth = true\ns3 =\n  use_arn_region = false\n")
        assert (resolve().use_arn_region, resolve().use_express_sessions) == (False, False)
        monkeypatch.setenv("AWS_S3_USE_ARN_REGION", "true")
        monkeypatch.setenv("AWS_S3_DISABLE_EXPRESS_SESSION_AUTH", "false")
        assert (resolve().use_arn_region, resolve().use_express_sessions) == (True, True)


def test_headers_that_go_with_every_request_and_with_writes() -> None:
    settings = resolve(
        S3ClientConfig(requester_pays=True, expected_bucket_owner="123456789012", storage_class="GLACIER_IR")
    )
    assert settings.headers == (
        ("x-amz-request-payer", "requester"),
        ("x-amz-expected-bucket-owner", "123456789012"),
    )
    assert settings.write_headers == (("x-amz-storage-class", "GLACIER_IR"),)
    settings = resolve(S3ClientConfig(tags={"a b": "c&d"}, kms_key_id="k", bucket_key=False))
    assert settings.write_headers == (("x-amz-tagging", "a%20b=c%26d"), *settings.encryption_headers)
    assert settings.encryption_headers == (
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "k"),
        ("x-amz-server-side-encryption-bucket-key-enabled", "false"),
    )


def test_mappings_are_kept_so_that_a_configuration_is_hashable() -> None:
    config = S3ClientConfig(tags={"a": "b"}, kms_context={"c": "d"})
    assert config == S3ClientConfig(tags="a=b", kms_context={"c": "d"})
    assert hash(config) == hash(dataclasses.replace(config))
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_environment_compares_equal_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment()
    assert environment() == before
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert environment() != before
