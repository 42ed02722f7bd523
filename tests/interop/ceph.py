"""A Ceph cluster of one machine with its S3 gateway, on loopback, in memory, gone when it is closed."""

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from uuid import uuid4

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
_START_TIMEOUT_S = 120

_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor_port}
public_network = 127.0.0.0/8
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {root}/keyring
run_dir = {root}
admin_socket = {root}/$name.asok
log_file = {root}/$name.log
pid_file = {root}/$name.pid
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 1
mon_data_avail_warn = 1
osd_objectstore = memstore
memstore_device_bytes = 8589934592
setuser_match_path =
[mon.a]
mon_data = {root}/mon
[osd.0]
osd_data = {root}/osd
[client.rgw]
rgw_data = {root}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{gateway_port}
rgw_dns_name = localhost
"""


def is_installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except HTTPError as error:
        error.close()
        return error.code < 500
    except (URLError, OSError):
        return False
    return True


@contextmanager
def running(root: Path) -> Iterator[str]:
    """Runs a cluster with its files under `root`; gives the endpoint of its S3."""
    configuration = root / "ceph.conf"
    ports = {"monitor_port": _free_port(), "gateway_port": _free_port()}
    fsid = str(uuid4())
    configuration.write_text(_CONFIGURATION.format(root=root, fsid=fsid, **ports))
    for name in ("mon", "osd", "rgw"):
        (root / name).mkdir()

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=_START_TIMEOUT_S
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def ceph(*arguments: str) -> str:
        return run("ceph", "-c", str(configuration), *arguments)

    with ExitStack() as stack:

        def serve(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                [program, "-f", "-c", str(configuration), *arguments],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

            def end() -> None:
                # Nothing in it is worth an orderly end, which takes many seconds.
                process.kill()
                process.wait()

            stack.callback(end)
            return process

        keyring, monitors = str(root / "keyring"), str(root / "monmap")
        for number, name in enumerate(("mon.", "client.admin", "client.rgw", "osd.0")):
            capabilities = [part for daemon in ("mon", "osd", "mgr") for part in ("--cap", daemon, "allow *")]
            create = ["--create-keyring"] if number == 0 else []
            run("ceph-authtool", *create, keyring, "--gen-key", "-n", name, *capabilities)
        address = f"[v2:127.0.0.1:{ports['monitor_port']}/0]"
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monitors)
        run("ceph-mon", "-c", str(configuration), "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
        serve("ceph-mon", "-i", "a")
        ceph("auth", "import", "-i", keyring)
        ceph("osd", "create")
        run("ceph-osd", "-c", str(configuration), "-i", "0", "--mkfs")
        serve("ceph-osd", "-i", "0")
        ceph("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        gateway = serve("radosgw", "-n", "client.rgw")
        endpoint = f"http://127.0.0.1:{ports['gateway_port']}"
        end = time.monotonic() + _START_TIMEOUT_S
        while not _answers(endpoint):
            if time.monotonic() > end or gateway.poll() is not None:
                raise RuntimeError(f"the gateway did not start: {(root / 'client.rgw.log').read_text()[-2000:]}")
            time.sleep(0.2)
        keys = [f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        run("radosgw-admin", "-c", str(configuration), "user", "create", "--uid=test", "--display-name=test", *keys)
        yield endpoint
