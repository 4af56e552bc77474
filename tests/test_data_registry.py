"""Downloads from a server on this machine: whole, damaged, missing, unreachable."""

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from crystaljax.data.registry import RESOURCES, Resource, fetch

CONTENT = b"material_id,cif\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class BreaksOff(Quiet):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)


def serve(handler: type, folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.csv").write_bytes(CONTENT)
    yield from serve(Quiet, tmp_path / "served")


def resource(url: str, checksum: str | None = None) -> Resource:
    return Resource("test", "crystals", f"{url}/data.csv", "data.csv", "a test", checksum)


@pytest.mark.parametrize(
    "checksum", [f"sha256:{SHA256}", f"md5:{hashlib.md5(CONTENT).hexdigest()}", None]
)
def test_download_once(tmp_path: Path, url: str, checksum: str | None) -> None:
    folder = tmp_path / "cache"
    path = fetch(resource(url, checksum), folder)
    assert path.read_bytes() == CONTENT
    (tmp_path / "served" / "data.csv").unlink()
    assert fetch(resource(url, checksum), folder) == path
    assert sorted(file.name for file in folder.iterdir()) == ["data.csv", "data.csv.checksum"]


def test_wrong_checksum_leaves_nothing(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(ValueError, match=f"{SHA256}, not {'0' * 64}"):
        fetch(resource(url, "sha256:" + "0" * 64), folder)
    assert list(folder.iterdir()) == []


def test_first_download_is_remembered(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "cache"
    fetch(resource(url), folder).unlink()
    (tmp_path / "served" / "data.csv").write_bytes(b"another content")
    with pytest.raises(ValueError, match="publisher changed"):
        fetch(resource(url), folder)


def test_file_placed_by_hand(tmp_path: Path) -> None:
    offline = resource("http://127.0.0.1:9", f"sha256:{SHA256}")
    with pytest.raises(ConnectionError) as error:
        fetch(offline, tmp_path)
    place = Path(re.search(r"save it as (.*)$", str(error.value))[1])  # type: ignore[index]
    assert "http://127.0.0.1:9/data.csv" in str(error.value)
    place.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        fetch(offline, tmp_path)
    place.write_bytes(CONTENT)
    assert fetch(offline, tmp_path) == place


def test_missing_on_the_server(tmp_path: Path, url: str) -> None:
    (tmp_path / "served" / "data.csv").unlink()
    with pytest.raises(ConnectionError, match=r"404|Not Found"):
        fetch(resource(url), tmp_path / "cache")


def test_broken_off(tmp_path: Path) -> None:
    server = serve(BreaksOff, tmp_path)
    with pytest.raises(ConnectionError, match=r"broke off|Incomplete"):
        fetch(resource(next(server)), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    next(server, None)


def test_unknown_name_and_unwritable_folder(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="mp20-train"):
        fetch("no-such-set")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write in"):
        fetch(resource(url), tmp_path / "file" / "cache")


def test_checksums_are_well_formed() -> None:
    for name, resource in RESOURCES.items():
        assert name == resource.name
        assert resource.url.startswith("https://")
        if resource.checksum:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", resource.checksum)
