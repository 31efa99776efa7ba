"""The viewer's server: to this machine alone, whatever a request claims."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import InputError
from tests.chromium import chromium
from tests.decathlon import IN_4D, RAS, labels, make_task, write
from trainer.cli import main
from trainer.view import Server
from trainer.viewer import Scan

LABELS = ("background", "pancreas", "cancer")
REFERENCE = labels((1, (2, 2, 2), (6, 8, 10)), (2, (3, 3, 3), (5, 5, 5)))
PREDICTION = labels((1, (2, 2, 2), (6, 8, 10)), (2, (3, 3, 4), (5, 5, 6)))


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """Return a scan stored as RAS: the array's first voxel is not the viewer's."""
    image = np.arange(960, dtype=np.int16).reshape(8, 10, 12) - 600
    return Scan.read(
        "case",
        write(tmp_path / "image.nii.gz", image),
        write(tmp_path / "reference.nii.gz", REFERENCE),
        write(tmp_path / "prediction.mha", PREDICTION),
    )


@pytest.fixture
def server(scan: Scan) -> Iterator[Server]:
    with Server(scan, LABELS) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: Server, path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_voxels_come_in_the_axis_order_of_the_patient(server: Server, tmp_path: Path) -> None:
    status, content = ask(server, server.root + "image")
    assert status == 200
    image = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "image.nii.gz")), "LPS")
    np.testing.assert_array_equal(
        np.frombuffer(content, "<i2").reshape(8, 10, 12), sitk.GetArrayFromImage(image)
    )
    _, content = ask(server, server.root + "reference")
    # of an RAS file x and y turn round
    np.testing.assert_array_equal(
        np.frombuffer(content, np.uint8).reshape(8, 10, 12), REFERENCE[:, ::-1, ::-1]
    )


def test_other_hosts_and_other_paths_are_refused(server: Server) -> None:
    port = server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert ask(server, server.root, host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil.example", ""):
        status, content = ask(server, server.root, host)
        assert status == 403
        assert b"pancreas" not in content
    for path in ("/", "/image", server.root + "../image", server.root + "x", "/etc/passwd"):
        assert ask(server, path)[0] == 404


def test_a_browser_that_goes_away_is_no_error(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for error, said in ((ConnectionResetError(104, "reset by peer"), False), (ValueError("a defect"), True)):
        try:
            raise error
        except (ConnectionError, ValueError):
            server.handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capfd.readouterr().err) == said


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with socket.socket() as other:
        other.settimeout(2)
        # another address of this machine, where nobody listens
        assert other.connect_ex(("127.0.0.2", server.server_port)) != 0


def test_two_viewers_have_two_secret_paths(server: Server, scan: Scan) -> None:
    with Server(scan, LABELS) as other:
        assert other.root != server.root
        assert len(other.root) > 20


def test_another_grid_is_refused(tmp_path: Path) -> None:
    image = write(tmp_path / "image.nii.gz", np.zeros((8, 10, 12), np.int16))
    other = write(tmp_path / "labels.nii.gz", REFERENCE, spacing_xyz_mm=(0.8, 0.9, 5.0))
    with pytest.raises(
        InputError, match=r"labels\.nii\.gz must lie on the grid of .*image\.nii\.gz, but has"
    ):
        Scan.read("x", image, None, other)


def test_a_port_that_is_taken_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("image.nii.gz", "prediction.mha")]
    assert main(["view", *files, "--port", str(server.server_port)]) == 1
    assert "cannot be listened on (address already in use); leave it out" in capsys.readouterr().err
    assert main(["view", *files, "--port", "70000"]) == 1
    assert "--port must lie in 0 to 65535, got 70000" in capsys.readouterr().err


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "pancreas,cancer",
            "must name each value from the background's 0 to 2, which a label map holds, got",
        ),
        ("background", "must be two or more different names, the background first, got 'background'"),
        ("background,pancreas,", "must be two or more different names"),
    ],
)
def test_names_that_do_not_fit_the_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: str, message: str
) -> None:
    files = [str(tmp_path / name) for name in ("image.nii.gz", "prediction.mha")]
    assert main(["view", *files, "--labels", names]) == 1
    assert f"--labels {message}" in capsys.readouterr().err.splitlines()[-1]


def test_a_value_that_the_data_set_does_not_name_stands_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tmp_path, {"a": np.where(REFERENCE == 2, 4, REFERENCE).astype(np.uint8)})
    pages: list[str] = []
    monkeypatch.setattr(
        Server, "serve_forever", lambda self: pages.append(self.answers[self.root][1].decode())
    )
    assert main(["view", *(str(task / folder / "a.nii.gz") for folder in ("imagesTr", "labelsTr"))]) == 0
    assert re.findall(r"> ([^<>]+)</li>", pages[0]) == ["pancreas", "cancer", "label 3", "label 4"]


@pytest.fixture
def mr_files(tmp_path: Path) -> list[Path]:
    """Return an MR image of two channels with small fractions, and its label map, in a data set."""
    task = make_task(tmp_path, {"a": REFERENCE})
    document = json.loads((task / "dataset.json").read_text())
    (task / "dataset.json").write_text(json.dumps(document | {"modality": {"0": "T2", "1": "ADC"}}))
    ramp = np.linspace(0, 1, 960, dtype=np.float32).reshape(8, 10, 12)
    image = write(task / "imagesTr" / "a.nii.gz", np.stack([ramp, 1e-3 * ramp[::-1]]), **IN_4D)
    return [image, task / "labelsTr" / "a.nii.gz"]


@pytest.mark.parametrize("channel", [0, 1])
def test_a_channel_of_an_mr_image_keeps_its_fractions(mr_files: list[Path], channel: int) -> None:
    image, label = mr_files
    scan = Scan.read("a", image, None, label, channels=("T2", "ADC"), channel=channel)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(image)))[channel, :, ::-1, ::-1]
    span = float(np.ptp(stored))
    np.testing.assert_allclose(scan.low + scan.step * scan.image, stored, atol=1e-4 * span)
    assert scan.window() == pytest.approx(tuple(np.percentile(stored, (0.5, 99.5))), abs=2e-4 * span)
    with Server(scan, LABELS) as server:
        page = server.answers[server.root][1]
    assert isinstance(page, bytes)
    described = json.loads(re.search(rb'id="scans">(.*?)</script>', page)[1])[0]  # type: ignore[index]
    assert described["unit"] == "(image value)"
    assert described["note"] == f"Channel {channel}, {('T2', 'ADC')[channel]}, of 2. The whole scan."
    assert (described["image"]["low"], described["image"]["step"]) == (scan.low, scan.step)


def test_values_far_from_the_others_and_no_numbers_end_the_steps(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 960, dtype=np.float32).reshape(8, 10, 12)
    values[0, 0, :3] = np.nan, np.inf, 1e9
    image = write(tmp_path / "image.nii.gz", values)
    scan = Scan.read("x", image, None, write(tmp_path / "labels.nii.gz", REFERENCE))
    # of an RAS file x and y turn round
    assert scan.image[0, -1, -3:].tolist() == [32767, 32767, -32768]
    assert scan.window() == pytest.approx((0.0, 1.0), abs=0.02)
    flat = write(tmp_path / "flat.nii.gz", np.full((8, 10, 12), 0.25, np.float32))
    scan = Scan.read("x", flat, None, tmp_path / "labels.nii.gz")
    low, high = scan.window()
    assert low == 0.25 < high


def test_an_oblique_scan_is_said_to_be_shown_on_the_nearest_axes(tmp_path: Path) -> None:
    turn = np.radians(20)
    turned = (np.cos(turn), -np.sin(turn), 0.0, np.sin(turn), np.cos(turn), 0.0, 0.0, 0.0, 1.0)
    for direction, degrees in ((turned, 20.0), (RAS, 0.0)):
        image = write(tmp_path / "image.nii.gz", np.zeros((8, 10, 12), np.int16), direction=direction)
        label = write(tmp_path / "labels.nii.gz", REFERENCE, direction=direction)
        scan = Scan.read("x", image, None, label)
        assert scan.turned_degrees == pytest.approx(degrees, abs=0.01)
        note = scan.describe(LABELS, [slice(0, n) for n in (8, 10, 12)], (1, 1, 1), "Rest.")["note"]
        assert ("oblique: its axes are turned by up to 20°" in note) == (degrees > 0)
        assert note.endswith("Rest.")


def test_a_ct_by_name_is_shown_in_hu_whatever_it_holds(tmp_path: Path) -> None:
    files = write(tmp_path / "a.nii.gz", np.full((8, 10, 12), 40.4, np.float32)), None
    label = write(tmp_path / "labels.nii.gz", REFERENCE)
    assert Scan.read("x", *files, label, channels=("CT",)).is_ct
    assert not Scan.read("x", *files, label, channels=("MRI",)).is_ct
    assert not Scan.read("x", *files, label).is_ct


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("2", "channel 2 was asked for, but .*a.nii.gz has the channels 0 to 1"),
        ("-1", "--channel must be at least 0, got -1"),
    ],
)
def test_a_channel_that_is_not_there_is_refused(
    mr_files: list[Path], capsys: pytest.CaptureFixture[str], channel: str, message: str
) -> None:
    assert main(["view", *map(str, mr_files), "--channel", channel]) == 1
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


@pytest.mark.another_python
def test_the_command_opens_in_a_browser_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    task = make_task(tmp_path, {"a": REFERENCE})
    script = "import sys; from trainer.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "view"]
    files = [str(task / folder / "a.nii.gz") for folder in ("imagesTr", "labelsTr")]
    process = subprocess.Popen([*command, *files], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{22}/", url)
        with chromium() as browser:
            browser.open(url)
            browser.wait("document.getElementById('viewer').dataset.state === 'ready'")
            said = browser.value("document.querySelector('[data-part=readout]').textContent")
            # the names come from dataset.json
            assert "slice 4 of 8 from the feet" in said
            assert "prediction: cancer" in said
            assert browser.value("document.querySelector('[data-part=reference]').disabled")
            assert browser.problems == []
            assert all(request.startswith((url, "data:")) for request in browser.requests)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
