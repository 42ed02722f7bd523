"""What `import s3dataset` gives and what it costs."""

import subprocess
import sys

import s3dataset


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_importing_loads_neither_torch_nor_botocore_nor_the_engine() -> None:
    loaded = run(
        "import sys, s3dataset; print([m for m in ('torch', 'botocore', 's3dataset._native') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_the_configuration_and_errors_load_neither_torch_nor_botocore() -> None:
    program = (
        "import sys, s3dataset; s3dataset.S3ClientConfig(); s3dataset.S3Exception('x'); s3dataset.errors.S3Exception; "
        "print([m for m in ('torch', 'botocore') if m in sys.modules])"
    )
    assert run(program) == "[]"


def test_every_public_name_is_there() -> None:
    for name in s3dataset.__all__:
        assert getattr(s3dataset, name) is getattr(s3dataset, name)


def test_names_are_sorted_and_listed() -> None:
    assert s3dataset.__all__ == sorted(s3dataset.__all__)
    assert set(s3dataset.__all__) <= set(dir(s3dataset))


def test_the_version_is_beyond_the_predecessors() -> None:
    assert isinstance(s3dataset.__version__, str)
    assert s3dataset.__version__ > "1.0.0"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(s3dataset, "S3MapDatasets")
