"""Who signs: where keys are found, how fast their absence is told, and when they are renewed."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.utils import InstanceMetadataFetcher

from s3dataset._client import _credentials, _providers
from s3dataset._client._credentials import CredentialKeeper, renewal_time
from s3dataset._client._providers import Loaded, load
from s3dataset._secrets import AccessKeys, CredentialSource
from s3dataset.errors import CredentialsError, InvalidConfigError, NoCredentialsError


@pytest.fixture(autouse=True)
def no_metadata_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the machine it runs on what it is."""
    monkeypatch.setattr(_providers, "_DMI", ())
    monkeypatch.setattr(_providers, "_METADATA_PATIENCE_S", 0.0)


class TestChain:
    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
        assert load(None, None) == Loaded(AccessKeys("key", "secret", "token"), renewable=False)

    def test_profile_given_goes_before_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "credentials").write_text("[train]\naws_access_key_id = of-profile\naws_secret_access_key = s\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        assert load(None, "train").keys.access_key == "of-profile"
        assert load(None, None).keys.access_key == "of-environment"

    def test_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = {"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "s", "SessionToken": "t"}
        answer["Expiration"] = "2099-01-01T00:00:00Z"
        (tmp_path / "answer").write_text(json.dumps(answer))
        (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/answer\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        assert load(None, None) == Loaded(AccessKeys("k", "s", "t", 4070908800.0), renewable=True)

    def test_none_at_all(self) -> None:
        with pytest.raises(NoCredentialsError) as caught:
            load(None, None)
        text = str(caught.value)
        assert text.startswith("Client error: No signing credentials found")
        for part in ("AWS_ACCESS_KEY_ID", "SSO", "container", "instance metadata", "unsigned=True"):
            assert part in text

    def test_outside_of_ec2_the_metadata_service_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setattr("botocore.utils.IMDSFetcher._get_request", pytest.fail)
        monkeypatch.setattr("botocore.utils.IMDSFetcher._fetch_metadata_token", pytest.fail)
        with pytest.raises(NoCredentialsError, match="this machine is none of EC2's"):
            load(None, None)

    @pytest.mark.parametrize("how", ["machine", "setting"])
    def test_within_ec2_it_is_asked(self, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        if how == "machine":
            (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
            monkeypatch.setattr(_providers, "_DMI", (str(tmp_path / "sys_vendor"),))
        else:
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
        answer = {
            "role_name": "r",
            "access_key": "k",
            "secret_key": "s",
            "token": "t",
            "expiry_time": "2099-01-01T00:00:00Z",
        }
        monkeypatch.setattr(
            "botocore.utils.InstanceMetadataFetcher.retrieve_iam_role_credentials", lambda _: dict(answer)
        )
        assert load(None, None).keys.access_key == "k"

    def test_a_metadata_service_that_is_silent_is_given_little_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
        timeouts: list[tuple[float, float]] = []
        original = InstanceMetadataFetcher.__init__

        def recorded(self: InstanceMetadataFetcher, timeout: tuple[float, float], **options: object) -> None:
            timeouts.append(timeout)
            original(self, timeout, **options)

        monkeypatch.setattr(InstanceMetadataFetcher, "__init__", recorded)
        with pytest.raises(NoCredentialsError):
            load(None, None)
        assert 0 < 2 * max(timeouts[0]) < 2, "it is asked twice, and all has to be over within two seconds"

    def test_a_provider_that_fails_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        with pytest.raises(CredentialsError, match=r"loaded from credential_process: .*Run the command by hand"):
            load(None, None)

    @pytest.mark.parametrize(
        ("command", "says"),
        [
            ("/no/such/tool", r"FileNotFoundError: .*/no/such/tool"),
            ("echo hello", "JSONDecodeError"),
            ("sh -c 'echo the vault is sealed >&2; exit 3'", "the vault is sealed"),
        ],
    )
    def test_a_process_that_fails_is_told_with_its_reason(
        self, command: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "config").write_text(f"[default]\ncredential_process = {command}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        with pytest.raises(CredentialsError, match=rf"loaded from credential_process: .*{says}"):
            load(None, None)

    def test_what_a_process_printed_is_not_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "answer").write_text('{"Version": 1, "SecretAccessKey": "the-secret", "AccessKeyId": ')
        (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/answer\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        with pytest.raises(CredentialsError) as caught:
            load(None, None)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    def test_web_identity_without_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
        with pytest.raises(CredentialsError, match=r"web identity .*/no/such/token.*trust policy"):
            load(None, None)

    def test_web_identity_that_is_denied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from botocore.exceptions import ClientError

        def denied(*_: object, **__: object) -> None:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRoleWithWebIdentity")

        (tmp_path / "token").write_text("t")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
        monkeypatch.setattr("botocore.client.BaseClient._make_api_call", denied)
        with pytest.raises(CredentialsError, match=r"web identity .*AccessDenied.*AssumeRoleWithWebIdentity"):
            load(None, None)

    def test_sso_without_a_login_says_how_to_log_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text(
            "[profile mine]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
            "[sso-session s]\nsso_start_url = https://x.example/start\nsso_region = us-east-1\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(CredentialsError, match=r"loaded from SSO: .*aws sso login --profile mine"):
            load(None, "mine")

    @pytest.mark.parametrize("uri", ["http://127.0.0.1:1/keys", "http://192.0.2.1/keys"])
    def test_a_container_that_does_not_answer_is_told(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
        with pytest.raises(CredentialsError, match=r"loaded from container \(ECS, EKS\): .*FULL_URI"):
            load(None, None)

    def test_a_file_that_cannot_be_parsed_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text("[profile mine\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        with pytest.raises(InvalidConfigError, match=rf"{tmp_path}/config: correct it"):
            load(None, None)

    def test_half_a_pair_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
            load(None, None)


class TestGiven:
    def test_keys_are_for_good(self) -> None:
        assert load(CredentialSource(("k", "s")), None) == Loaded(AccessKeys("k", "s"), renewable=False)

    def test_a_callable_is_asked_again(self) -> None:
        assert load(CredentialSource(lambda: ("k", "s")), None) == Loaded(AccessKeys("k", "s"), renewable=True)

    def test_a_callable_that_fails(self) -> None:
        def vault() -> None:
            raise OSError("vault is sealed")

        with pytest.raises(CredentialsError, match="callable given as credentials= failed: OSError: vault is sealed"):
            load(CredentialSource(vault), None)

    def test_a_callable_that_gives_something_else(self) -> None:
        with pytest.raises(InvalidConfigError, match="NoneType"):
            load(CredentialSource(lambda: None), None)

    def test_a_botocore_session(self) -> None:
        from botocore.session import Session

        session = Session()
        session.set_credentials("k", "s", "t")
        assert load(CredentialSource(session), None).keys == AccessKeys("k", "s", "t")

    def test_a_session_without_any(self) -> None:
        from botocore.session import Session

        with pytest.raises(InvalidConfigError, match="has none"):
            load(CredentialSource(Session()), None)


@pytest.mark.parametrize(
    ("lifetime_s", "jitter", "after_s"),
    [(3600, 0.0, 3000), (3600, 0.5, 2940), (43200, 0.0, 42600), (900, 0.0, 450), (60, 0.9, 30)],
)
def test_renewal_is_ten_minutes_ahead_or_at_half_time(lifetime_s: float, jitter: float, after_s: float) -> None:
    assert renewal_time(AccessKeys("k", "s", "t", 1000 + lifetime_s), 1000, jitter) == 1000 + after_s


def test_keys_without_expiry_are_not_renewed() -> None:
    assert renewal_time(AccessKeys("k", "s"), 1000, 0.0) == float("inf")


class Signer:
    """Stands in for the engine's client: a script of what it asks for, and what it was given."""

    def __init__(self, *wanted: str | None) -> None:
        self.wanted = list(wanted)
        self.waits: list[float] = []
        self.given: list[str] = []
        self.refused: list[str] = []
        self.ended = threading.Event()

    def set_credentials(self, access_key: str, secret_key: str, session_token: str | None) -> None:
        self.given.append(access_key)

    def wait_credentials_wanted(self, timeout_s: float) -> str | None:
        self.waits.append(timeout_s)
        if not self.wanted:
            self.ended.set()
            return None
        return self.wanted.pop(0)

    def refuse_credentials(self, reason: str) -> None:
        self.refused.append(reason)


def numbered(expires_in_s: float | None = None) -> Callable[[], dict[str, object]]:
    count = 0

    def keys() -> dict[str, object]:
        nonlocal count
        count += 1
        found: dict[str, object] = {"access_key": f"key-{count}", "secret_key": "s"}
        if expires_in_s is not None:
            found["expires_at"] = time.time() + expires_in_s
        return found

    return keys


class TestKeeper:
    def test_keys_that_stay_need_no_thread(self) -> None:
        signer = Signer()
        assert CredentialKeeper(CredentialSource(("k", "s")), None).provide(signer, signer.ended) is None
        assert signer.given == ["k"]

    def test_a_request_with_refused_keys_gets_others(self) -> None:
        signer = Signer("key-1")
        keeper = CredentialKeeper(CredentialSource(numbered()), None)
        renew = keeper.provide(signer, signer.ended)
        assert renew is not None
        renew()
        assert signer.given == ["key-1", "key-2"]
        assert not signer.refused

    def test_refused_keys_without_others_are_told(self) -> None:
        signer = Signer("k")
        keeper = CredentialKeeper(CredentialSource(lambda: ("k", "s")), None)
        renew = keeper.provide(signer, signer.ended)
        assert renew is not None
        renew()
        assert len(signer.refused) == 1
        assert "no others" in signer.refused[0]

    def test_keys_about_to_expire_are_renewed_unasked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            _credentials, "renewal_time", lambda keys, now, jitter: now if keys.access_key == "key-1" else now + 9
        )
        signer = Signer(None)
        keeper = CredentialKeeper(CredentialSource(numbered(3600)), None)
        renew = keeper.provide(signer, signer.ended)
        assert renew is not None
        renew()
        assert signer.given == ["key-1", "key-2"]

    def test_another_client_of_the_keeper_profits_from_a_renewal(self) -> None:
        signer = Signer()
        keeper = CredentialKeeper(CredentialSource(numbered()), None)
        keeper.provide(signer, signer.ended)
        assert keeper.renew("key-1").access_key == "key-2"
        assert keeper.renew("key-1").access_key == "key-2"

    def test_the_thread_ends_with_its_keeper(self) -> None:
        signer = Signer(*[None] * 1000)
        keeper = CredentialKeeper(CredentialSource(numbered()), None)
        renew = keeper.provide(signer, signer.ended)
        assert renew is not None
        del keeper
        renew()
        assert not signer.waits

    def test_inherited_keys_are_used_until_they_expire(self) -> None:
        signer = Signer()
        fresh = Loaded(AccessKeys("inherited", "s", None, time.time() + 100), renewable=True)
        CredentialKeeper(CredentialSource(numbered()), None, fresh).provide(signer, signer.ended)
        stale = Loaded(AccessKeys("stale", "s", None, time.time() - 1), renewable=True)
        CredentialKeeper(CredentialSource(numbered()), None, stale).provide(signer, signer.ended)
        assert signer.given == ["inherited", "key-1"]
