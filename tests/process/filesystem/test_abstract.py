"""fsspec's own suite for file systems, as the installed version has it."""

import posixpath

import pytest
from fsspec.tests import abstract


class _Later:
    """For tests that the installed fsspec does not have yet."""


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs_path(self, root):
        return root

    @pytest.fixture
    def fs_join(self):
        return posixpath.join

    @pytest.fixture
    def fs(self, fs):
        return fs

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(getattr(abstract, "AbstractOpenTests", _Later), Fixtures):
    pass


class TestPipe(getattr(abstract, "AbstractPipeTests", _Later), Fixtures):
    pass
