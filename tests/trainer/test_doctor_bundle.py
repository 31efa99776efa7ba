from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import coarse_to_fine_bundle, random_bundle, write_random_bundle
from trainer.cli import main
from trainer.doctor.bundle import check
from trainer.doctor.finding import Finding
from trainer.package import write_tarball


def errors(findings: list[Finding]) -> list[str]:
    return [finding.sentence for finding in findings if finding.severity == "error"]


def warnings(findings: list[Finding]) -> list[str]:
    return [finding.sentence for finding in findings if finding.severity == "warning"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_random_bundle(tmp_path / "bundle")


def packed(
    path: Path, bundle: Path, *more: tuple[str, bytes | str | tarfile.TarInfo], mode: int = 0o644
) -> Path:
    """Write a tarball of a bundle with further members: bytes, the target of a link, or a member as it is."""
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(bundle.iterdir()):
            add(archive, file.name, file.read_bytes(), mode)
        for name, what in more:
            if isinstance(what, bytes):
                add(archive, name, what, 0o644)
            elif isinstance(what, str):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, what
                archive.addfile(link)
            else:
                archive.addfile(what)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def test_a_folder_and_its_tarball_are_fine(bundle: Path, tmp_path: Path) -> None:
    for path in (bundle, tmp_path / "model.tar.gz"):
        if path != bundle:
            write_tarball(path, random_bundle())
        (finding,) = check(path)
        assert finding.severity == "note"
        assert (
            "patches of 16 x 32 x 32 voxels (z, y, x), labels background, pancreas, cancer"
            in finding.sentence
        )


def test_a_coarse_pass_is_said(tmp_path: Path) -> None:
    write_tarball(tmp_path / "model.tar.gz", coarse_to_fine_bundle())
    (finding,) = check(tmp_path / "model.tar.gz")
    assert finding.sentence.endswith("with a coarse pass")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no description": (lambda bundle: (bundle / "model.json").unlink(), "it lacks model.json"),
    "no weights": (lambda bundle: (bundle / "model.safetensors").unlink(), "it lacks model.safetensors"),
    "no JSON": (lambda bundle: (bundle / "model.json").write_text("{"), "is not valid JSON"),
    "no safetensors": (
        lambda bundle: (bundle / "model.safetensors").write_bytes(b"no tensors"),
        "is not a valid safetensors file",
    ),
    "a pickle under another name": (
        lambda bundle: (bundle / "model.safetensors").write_bytes(b"\x80\x04."),
        "model.safetensors is a pickle under another name, which can run code",
    ),
    "a pickle": (
        lambda bundle: (bundle / "weights.pth").write_bytes(b""),
        "weights.pth is a pickle, which can run code",
    ),
    "another network": (lambda bundle: change(bundle, base_filters=4), "has shape"),
    "another depth": (lambda bundle: change(bundle, depth=2), "does not ask for"),
}


def change(bundle: Path, **arguments: int) -> None:
    document = json.loads((bundle / "model.json").read_text())
    document["network"].update(arguments)
    (bundle / "model.json").write_text(json.dumps(document))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused(damage: str, bundle: Path) -> None:
    make, sentence = DAMAGES[damage]
    make(bundle)
    assert len([each for each in errors(check(bundle)) if sentence in each]) == 1


@pytest.mark.parametrize(
    ("name", "what", "sentence"),
    [
        ("../model.json", b"{}", "would be unpacked outside the model's folder"),
        ("/etc/passwd", b"", "would be unpacked outside the model's folder"),
        ("a/../../b", b"", "would be unpacked outside the model's folder"),
        ("weights.bin", b"", "weights.bin is a pickle, which can run code"),
        ("link.json", "/etc/passwd", "link.json is a link"),
        ("model.json", b"{}", "holds model.json twice"),
        ("bundle/model.json", b"{}", "holds both model.json and bundle/model.json"),
    ],
)
def test_tarballs_with_such_members_are_refused(
    name: str, what: bytes | str, sentence: str, bundle: Path, tmp_path: Path
) -> None:
    (found,) = errors(check(packed(tmp_path / "model.tar.gz", bundle, (name, what))))
    assert sentence in found


def test_folders_of_bundles_are_ensembles(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_random_bundle(tmp_path / "ensemble" / name)
    found = check(tmp_path / "ensemble")
    assert [finding.severity for finding in found] == ["note", "note"]
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ensemble", ".")
    found = check(tmp_path / "model.tar.gz")
    assert [finding.severity for finding in found] == ["warning", "note", "note"]
    assert "holds 2 bundles in folders" in found[0].sentence
    (tmp_path / "ensemble" / "b" / "model.safetensors").write_bytes(b"")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ensemble", ".")
    (said,) = errors(check(tmp_path / "model.tar.gz"))
    assert said.startswith(f"{tmp_path / 'model.tar.gz'}/b/model.safetensors is not a valid safetensors file")


def test_tarballs_of_another_kind_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "model.tar.gz", bundle)
    whole = path.read_bytes()
    path.write_bytes(gzip.decompress(whole))
    assert "must be compressed with gzip" in errors(check(path))[0]
    path.write_bytes(whole[: len(whole) // 2])
    assert "is not a readable tarball" in errors(check(path))[0]
    assert "does not exist" in errors(check(tmp_path / "nothing"))[0]
    pickle = tmp_path / "model.pt"
    pickle.write_bytes(b"\x80\x04.")
    (found,) = errors(check(pickle))
    assert "is a pickle" in found


def test_a_device_is_refused(bundle: Path, tmp_path: Path) -> None:
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    (found,) = errors(check(packed(tmp_path / "model.tar.gz", bundle, ("null", device))))
    assert "is no regular file" in found


def test_what_only_the_owner_can_read_is_said(bundle: Path, tmp_path: Path) -> None:
    found = errors(check(packed(tmp_path / "model.tar.gz", bundle, mode=0o600)))
    assert len(found) == 2
    assert "can be read by its owner only (mode 600)" in found[0]
    folder = tarfile.TarInfo("./")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o700
    (closed,) = errors(check(packed(tmp_path / "folder.tar.gz", bundle, ("./", folder))))
    assert "can be entered by its owner only (mode 700)" in closed
    folder.mode = 0o755
    assert errors(check(packed(tmp_path / "open.tar.gz", bundle, ("./", folder)))) == []
    (bundle / "model.json").chmod(0o600)
    (said,) = warnings(check(bundle))
    assert "model.json can be read by its owner only" in said


def test_other_files_and_silence_about_the_origin_are_warnings(tmp_path: Path) -> None:
    folder = write_random_bundle(tmp_path / "bundle", provenance={})
    (folder / "notes.txt").touch()
    (folder / "._model.json").touch()
    (folder / ".DS_Store").touch()
    found = check(folder)
    assert errors(found) == []
    assert [each.split(str(folder))[1][:14] for each in warnings(found)] == [
        "/._model.json ",
        "/notes.txt is ",
        " does not say ",
    ]


def test_the_command(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "bundle", str(bundle)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"note: {bundle}: ")
    assert out[1] == "no error, 0 warnings"
    for name in ("a.pt", "b.pkl"):
        (bundle / name).touch()
    assert main(["doctor", "bundle", str(bundle)]) == 1
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["error", "error", "note"]
    assert captured.err.splitlines()[-1].endswith("remove it (and 1 more error)")


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, line in (
        (["doctor"], "required: SUBJECT"),
        (["doctor", "weights"], "invalid choice: 'weights'"),
        (["doctor", "bundle"], "required: BUNDLE"),
        (["doctor", "bundle", "x", "--fast"], "there is no argument '--fast'"),
        (
            ["doctor", "output", "x", "--inputs", "y"],
            "there is no argument '--inputs'; did you mean '--input'?",
        ),
        # an option that only another subject has is not suggested, nor what was given
        (["doctor", "output", "x", "--threads", "2"], "there is no argument '--threads'"),
        (["doctor", "--threads=2", "dataset", "x"], "'--threads=2' must stand behind 'doctor dataset'"),
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
        assert line in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit) as left:
        main(["doctor", "bundle", "--help"])
    assert left.value.code == 0
    assert "decathlon doctor bundle model.tar.gz" in capsys.readouterr().out
