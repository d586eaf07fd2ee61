"""Files of versions whose MLflow store is elsewhere: whole, kept once, and what changes there is noticed."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from registered_versions import TinyRegistry

from osmf_pipelines.promotion.fetched_files import kept_copy
from osmf_pipelines.promotion.registry import Package, Registry, RegistryError

ENDPOINT = "/api/2.0/mlflow-artifacts/artifacts"
WEIGHTS = "artifacts/model/weights.safetensors"


class ArtifactServer(ThreadingHTTPServer):
    """Answers as an MLflow server with `--serve-artifacts` where files are listed and fetched."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.server_port}{ENDPOINT}"


class _Answer(BaseHTTPRequestHandler):
    server: ArtifactServer

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        listed = parse_qs(asked.query).get("path")
        if listed is not None:
            inside = self.server.folder / listed[0]
            files = [{"path": one.name, "is_dir": one.is_dir()} for one in inside.glob("*")]
            self._send(json.dumps({"files": files}).encode())
            return
        name = unquote(asked.path).removeprefix(f"{ENDPOINT}/")
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        self._send(path.read_bytes())

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(registry: TinyRegistry) -> Iterator[ArtifactServer]:
    with ArtifactServer(registry.settings.home / "packages") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def elsewhere(registry: TinyRegistry, server: ArtifactServer) -> int:
    """A version whose files the server has."""
    number = registry.add("first", None)
    return add_elsewhere(registry, server, registry.tags(number))


@pytest.fixture
def copies(registry: TinyRegistry) -> Path:
    return registry.settings.home / "registry_files"


def add_elsewhere(registry: TinyRegistry, server: ArtifactServer, tags: dict[str, str]) -> int:
    return int(registry.client.create_model_version("shop", f"{server.address}/0-first", tags=tags).version)


def look_at(registry: TinyRegistry, number: int) -> Package:
    of_shop = Registry(registry.settings)
    return of_shop.package(of_shop.version(number))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_looks_leave_one_copy(registry, server, elsewhere, copies, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for _ in range(2):
        package = look_at(registry, elsewhere)
        assert package.changes_since(Registry(registry.settings).version(elsewhere)) == ()
        assert (package.folder / WEIGHTS).read_text() == "first"
    sha256 = registry.tags(elsewhere)["package_sha256"]
    assert package.folder == copies / sha256
    assert names_in(copies) == {sha256}
    assert list(temporary.iterdir()) == []


def test_files_on_this_machine_are_not_copied(registry, copies):
    number = registry.add("first", None)
    assert look_at(registry, number).folder == registry.folders[number]
    assert not copies.exists()


def test_what_was_fetched_in_part_is_no_copy(registry, server, elsewhere, copies, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    weights = registry.weights(1)
    weights.rename(weights.with_name("away"))
    weights.symlink_to("nowhere")  # listed, and cannot be read
    with pytest.raises(RegistryError, match=r"version 2 cannot be fetched from http://127.*: restore them"):
        look_at(registry, elsewhere)
    assert names_in(copies) == {"part"}
    weights.unlink()
    weights.with_name("away").rename(weights)
    assert (look_at(registry, elsewhere).folder / WEIGHTS).read_text() == "first"
    assert names_in(copies) == {registry.tags(elsewhere)["package_sha256"]}


def test_a_copy_that_was_changed_is_replaced(registry, elsewhere):
    (look_at(registry, elsewhere).folder / WEIGHTS).write_text("another")
    assert (look_at(registry, elsewhere).folder / WEIGHTS).read_text() == "first"


def test_files_that_were_changed_elsewhere_are_noticed(registry, elsewhere):
    version = Registry(registry.settings).version(elsewhere)
    assert look_at(registry, elsewhere).changes_since(version) == ()
    registry.weights(1).write_text("another")
    assert look_at(registry, elsewhere).changes_since(version)


@pytest.mark.parametrize("tags", [{}, {"artifact_sha256": "a" * 64, "package_sha256": "b" * 64}])
def test_files_without_their_hash_are_told_and_kept_once(registry, server, elsewhere, copies, tags):
    number = add_elsewhere(registry, server, tags)
    for _ in range(2):
        package = look_at(registry, number)
        assert "register it again" in package.changes_since(Registry(registry.settings).version(number))[0]
    assert names_in(copies) == {registry.tags(elsewhere)["package_sha256"]}


class Killed(BaseException):
    """Ends a step as a kill does: no code of ours runs after it."""


def test_what_a_kill_left_is_never_taken_for_whole(tmp_path):
    def fetch(part: Path) -> Path:
        (part / "files").mkdir()
        (part / "files" / "one").write_text("1")
        return part / "files"

    def fetch_half(part: Path) -> Path:
        (part / "files").mkdir()
        (part / "files" / "zero").write_text("0")
        raise Killed

    with pytest.raises(Killed):
        kept_copy(tmp_path, fetch_half)
    copy = kept_copy(tmp_path, fetch)
    assert [path.name for path in copy.iterdir()] == ["one"]
    assert names_in(tmp_path) == {copy.name}
    with pytest.raises(Killed):
        kept_copy(tmp_path, fetch_half)
    assert kept_copy(tmp_path, fetch) == copy
