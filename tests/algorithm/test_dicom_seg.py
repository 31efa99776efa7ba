"""DICOM Segmentations, read back with pydicom alone and compared with the slices to which they refer."""

from __future__ import annotations

import math
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, segread
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from algorithm.colours import COLOURS
from algorithm.dicom_seg import read_source, segment_codes, write_segmentation
from algorithm.errors import InputError
from algorithm.images import read_hounsfield, read_labels
from algorithm.predict import predict
from algorithm.segmenter import Segmenter
from tests.bundles import write_random_bundle
from tests.dicoms import PATIENT, ROOT, write_series
from trainer.cli import main as decathlon

NAMES = ("background", "pancreas", "cancer")
ALONG_AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (math.cos(0.3), math.sin(0.3), 0.0, -math.sin(0.3), math.cos(0.3), 0.0)


@pytest.fixture
def volume() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4096, (6, 5, 7), dtype=np.uint16)


@pytest.fixture
def series(tmp_path: Path, volume: NDArray[np.uint16]) -> Path:
    write_series(tmp_path / "series", volume, description="Portal venous")
    return tmp_path / "series"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_random_bundle(tmp_path / "model")


def edit(path: Path, change: Callable[[Dataset], object]) -> None:
    header = dcmread(path)
    change(header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.save_as(path)


def labels_of(hu: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return labels that tell each pixel and slice from its neighbours: 0, 1 and 2."""
    return (hu % 3).astype(np.uint8)


def written(path: Path, folder: Path, labels: NDArray[np.uint8], names: tuple[str, ...] = NAMES) -> Dataset:
    write_segmentation(path, labels, read_source(folder), names, model="0123abcd")
    return dcmread(path)


def frames(segmentation: Dataset) -> Iterator[tuple[int, str, Dataset, NDArray[np.uint8]]]:
    """Yield segment number, the slice referred to, functional groups and pixels of each frame."""
    shape = (-1, segmentation.Rows, segmentation.Columns)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    groups = segmentation.PerFrameFunctionalGroupsSequence
    for group, frame in zip(groups, segmentation.pixel_array.reshape(shape), strict=True):
        identification = group if "SegmentIdentificationSequence" in group else shared
        segment = identification.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        (derivation,) = group.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        yield segment, source.ReferencedSOPInstanceUID, group, frame


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_source(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("orientation", [ALONG_AXES, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("shuffled", [False, True])
def test_each_frame_holds_the_labels_of_the_slice_it_refers_to(
    tmp_path: Path, volume: NDArray[np.uint16], orientation: tuple[float, ...], sign: float, shuffled: bool
) -> None:
    folder = tmp_path / "series"
    step = 3.0 * sign * np.cross(orientation[:3], orientation[3:])
    files = write_series(
        folder, volume, step=step.tolist(), orientation=orientation, spacing_yx=(0.7, 0.9), slope=1.0
    )
    if shuffled:
        for file, number in zip(files, np.random.default_rng(3).permutation(len(files)), strict=True):
            file.rename(folder / f"IM{number}")
    labels = labels_of(read_hounsfield(folder)[0])
    segmentation = written(tmp_path / "out.dcm", folder, labels)
    slices = {header.SOPInstanceUID: header for header in map(dcmread, folder.iterdir())}
    seen = []
    for segment, refers_to, group, frame in frames(segmentation):
        source = slices[refers_to]
        expected = labels_of(source.pixel_array.astype(int) - 1024) == segment
        np.testing.assert_array_equal(frame, expected)
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        seen.append((segment, refers_to))
    assert sorted(seen) == sorted((segment, uid) for segment in (1, 2) for uid in slices)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == source.ImageOrientationPatient
    (measures,) = shared.PixelMeasuresSequence
    assert measures.PixelSpacing == [0.7, 0.9]
    assert measures.SpacingBetweenSlices == measures.SliceThickness == 3.0


def test_a_segmentation_belongs_to_the_patient_study_and_space_of_its_slices(
    tmp_path: Path, series: Path
) -> None:
    segmentation = written(tmp_path / "out.dcm", series, np.ones((6, 5, 7), np.uint8))
    headers = [dcmread(path) for path in sorted(series.iterdir())]
    assert segmentation.SOPClassUID.name == "Segmentation Storage"
    assert (segmentation.Modality, segmentation.SegmentationType) == ("SEG", "BINARY")
    assert (segmentation.PatientName, segmentation.ContentCreatorName) == (PATIENT, "")
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert segmentation[keyword].value == headers[0][keyword].value
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == headers[0].SeriesInstanceUID != segmentation.SeriesInstanceUID
    uids = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
    assert uids == {header.SOPInstanceUID for header in headers}
    assert segmentation.SeriesDescription == "Segmentation of Portal venous"


def test_each_run_is_an_instance_of_its_own(tmp_path: Path, series: Path) -> None:
    labels = np.ones((6, 5, 7), np.uint8)
    first = written(tmp_path / "out.dcm", series, labels)
    second = written(tmp_path / "out.dcm", series, labels)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID


def test_segments_say_what_they_are_and_who_made_them(tmp_path: Path, series: Path) -> None:
    segmentation = written(tmp_path / "out.dcm", series, np.ones((6, 5, 7), np.uint8))
    organ, lesion = segmentation.SegmentSequence
    assert [organ.SegmentLabel, lesion.SegmentLabel] == ["pancreas", "cancer"]
    assert organ.SegmentedPropertyTypeCodeSequence[0].CodeValue == "15776009"
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert "AnatomicRegionSequence" not in organ
    assert lesion.AnatomicRegionSequence[0].CodeMeaning == "Pancreas"
    for segment, colour in zip((organ, lesion), COLOURS, strict=False):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmParameters) == (
            "decathlon-unet",
            "model=0123abcd",
        )
        assert algorithm.AlgorithmVersion == segmentation.SoftwareVersions
        stored = CIELabColor.from_dicom_value(list(segment.RecommendedDisplayCIELabValue))
        assert "#{:02X}{:02X}{:02X}".format(*stored.to_rgb(clip=True)) == colour


@pytest.mark.parametrize(
    ("name", "category", "kind"),
    [
        ("pancreas", "Anatomical Structure", ("SCT", "15776009")),
        ("Liver", "Anatomical Structure", ("SCT", "10200004")),
        ("left atrium", "Anatomical Structure", ("SCT", "82471001")),
        ("cancer", "Morphologically Abnormal Structure", ("SCT", "108369006")),
        ("Tumour", "Morphologically Abnormal Structure", ("SCT", "108369006")),
        ("colon cancer primaries", "Morphologically Abnormal Structure", ("SCT", "108369006")),
        ("non-enhancing tumors", "Morphologically Abnormal Structure", ("SCT", "108369006")),
        ("lesion", "Morphologically Abnormal Structure", ("SCT", "52988006")),
        ("edema", "Morphologically Abnormal Structure", ("SCT", "79654002")),
        ("PZ", "Tissue", ("99DECATHLON", "PZ")),
        ("a\\b\nc", "Tissue", ("99DECATHLON", "a/b c")),
    ],
)
def test_labels_are_coded_by_their_names(name: str, category: str, kind: tuple[str, str]) -> None:
    found, coded = segment_codes(name)
    assert found.meaning == category
    assert (coded.scheme_designator, coded.value) == kind


def test_any_label_name_can_be_written(tmp_path: Path, series: Path) -> None:
    names = (
        "background",
        "a name that is longer than what a code value of DICOM can hold " * 2,
        "Läsion\\膵",
        "",
    )
    segmentation = written(tmp_path / "out.dcm", series, np.ones((6, 5, 7), np.uint8), names)
    labels = [segment.SegmentLabel for segment in segmentation.SegmentSequence]
    assert labels == [names[1][:64].strip(), "Läsion/膵", "unnamed"]


def test_one_label_is_one_segment(tmp_path: Path, series: Path) -> None:
    labels = labels_of(read_hounsfield(series)[0]) // 2
    segmentation = written(tmp_path / "out.dcm", series, labels, ("background", "liver"))
    assert {segment for segment, *_ in frames(segmentation)} == {1}
    assert sum(int(frame.sum()) for *_, frame in frames(segmentation)) == labels.sum()


def test_frames_without_a_voxel_are_left_out_and_their_segment_stays(tmp_path: Path, series: Path) -> None:
    labels = np.zeros((6, 5, 7), np.uint8)
    labels[1:3, 2, 3] = 1
    segmentation = written(tmp_path / "out.dcm", series, labels)
    assert [segment for segment, *_ in frames(segmentation)] == [1, 1]
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == ["pancreas", "cancer"]


def test_nothing_found_is_every_frame_without_a_voxel(
    tmp_path: Path, series: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segmentation = written(tmp_path / "out.dcm", series, np.zeros((6, 5, 7), np.uint8))
    assert len(segmentation.SegmentSequence) == 2
    assert segmentation.NumberOfFrames == 12
    assert not segmentation.pixel_array.any()
    assert not caplog.records
    assert segread(tmp_path / "out.dcm").number_of_segments == 2


@pytest.mark.parametrize(
    ("charset", "name", "procedure"),
    [
        (
            ["", "ISO 2022 IR 87"],
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "腹部",
        ),  # the name is from PS3.5, H.3.1
        ("ISO_IR 100", "Müller^Jörg", "Schädel"),
        (None, PATIENT, "Abdomen"),
    ],
)
def test_text_of_any_character_set_is_kept(
    tmp_path: Path, series: Path, charset: object, name: str, procedure: str
) -> None:
    def rename(header: Dataset) -> None:
        header.SpecificCharacterSet = charset
        header.PatientName = name
        header.ProcedureCodeSequence = [Dataset()]
        header.ProcedureCodeSequence[0].CodeMeaning = procedure

    for path in series.iterdir():
        edit(path, rename)
    segmentation = written(tmp_path / "out.dcm", series, np.ones((6, 5, 7), np.uint8))
    assert str(segmentation.PatientName) == name
    assert segmentation.ProcedureCodeSequence[0].CodeMeaning == procedure


def test_slices_without_preamble_and_with_rounded_axes_are_read(
    tmp_path: Path, volume: NDArray[np.uint16]
) -> None:
    folder = tmp_path / "series"
    write_series(folder, volume[:3], preamble=False, orientation=OBLIQUE)
    write_series(
        tmp_path / "more",
        volume[3:],
        origin=(-10.0, 20.0, 37.5),
        preamble=False,
        orientation=np.round(OBLIQUE, 4).tolist(),
    )
    for path in (tmp_path / "more").iterdir():
        path.rename(folder / f"more{path.name}")
    segmentation = written(tmp_path / "out.dcm", folder, np.ones((6, 5, 7), np.uint8))
    assert segmentation.NumberOfFrames == 6


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize(
    "keyword",
    ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"],
)
def test_a_missing_identifier_is_named_with_its_file(series: Path, keyword: str, remove: bool) -> None:
    files = sorted(series.iterdir())
    # all of them: slices that differ in their series would be of two series
    for path in files:
        edit(path, lambda header: delattr(header, keyword) if remove else setattr(header, keyword, ""))
    assert refusal(series) == (
        f"{files[-1]} does not state its {keyword}, to which a DICOM segmentation must refer; take the slices as the "
        "archive stored them (an anonymiser must replace identifiers, not remove them), or leave out --dicom-seg"
    )


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_slices_of_several_studies_or_spaces_are_refused(series: Path, keyword: str) -> None:
    files = sorted(series.iterdir())
    edit(files[2], lambda header: setattr(header, keyword, f"{ROOT}.5"))
    message = refusal(series)
    assert message.startswith(
        f"{files[-1]} and {files[2]} are of one series, but differ in their {keyword}; "
    )


def test_one_identifier_for_two_slices_is_refused(series: Path) -> None:
    files = sorted(series.iterdir())
    uid = dcmread(files[4]).SOPInstanceUID
    edit(files[1], lambda header: setattr(header, "SOPInstanceUID", uid))
    assert refusal(series).startswith(f"{files[4]} and {files[1]} have one SOPInstanceUID, so that")


def test_an_entry_that_cannot_be_repeated_is_refused_before_anything_is_segmented(
    tmp_path: Path, series: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "labels", lambda *_, **_options: pytest.fail("segmented in vain"))
    for path in series.iterdir():
        edit(path, lambda header: setattr(header, "PatientSex", "MALE"))
    message = refusal(series)
    assert message.startswith(
        f"{series / '006.dcm'} says something that a DICOM segmentation cannot repeat: 'MALE'"
    )
    with pytest.raises(InputError, match=r"1 of 1 scans failed.*'MALE'"):
        predict(series, model, tmp_path / "out", dicom_seg=True)


def test_labels_of_other_planes_are_refused(tmp_path: Path, series: Path) -> None:
    source = read_source(series)
    for labels, names in (
        (np.zeros((5, 5, 7), np.uint8), NAMES),
        (np.zeros((6, 5, 7), np.int16), NAMES),
        (np.full((6, 5, 7), 3, np.uint8), NAMES),
    ):
        with pytest.raises(ValueError, match=r"labels must be uint8 \(6, 5, 7\) \(z, y, x\) below 3, got"):
            write_segmentation(tmp_path / "out.dcm", labels, source, names, model="")
    assert not (tmp_path / "out.dcm").exists()


def test_a_file_that_holds_something_else_is_not_kept(
    tmp_path: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, labels = read_source(series), labels_of(read_hounsfield(series)[0])
    save = Segmentation.save_as

    def damaged(self: Segmentation, path: Path) -> None:
        self.PixelData = bytes([self.PixelData[0] ^ 1]) + self.PixelData[1:]
        save(self, path)

    monkeypatch.setattr(Segmentation, "save_as", damaged)
    with pytest.raises(RuntimeError, match="was written with other labels on slice"):
        write_segmentation(tmp_path / "out" / "a.dcm", labels, source, NAMES, model="")
    assert list((tmp_path / "out").iterdir()) == []


def test_where_nothing_can_be_written_is_said(tmp_path: Path, series: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out/a\.dcm cannot be written: "):
        write_segmentation(
            tmp_path / "out" / "a.dcm", np.ones((6, 5, 7), np.uint8), read_source(series), NAMES, model=""
        )


def test_predict_writes_what_it_would_write_as_nifti_and_continues(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hu = np.random.default_rng(1).integers(824, 1324, (12, 32, 40)).astype(np.uint16)
    folder = tmp_path / "case_7"
    write_series(folder, hu, step=(0.0, 0.0, -5.0), spacing_yx=(2.0, 2.0))
    (nifti,) = predict(folder, model, tmp_path / "out")
    (result,) = predict(folder, model, tmp_path / "out", dicom_seg=True)
    assert (nifti.name, result.name) == ("case_7.nii.gz", "case_7.dcm")
    labels, _ = read_labels(nifti)
    assert set(np.unique(labels)) > {0}
    instances = [header.SOPInstanceUID for header in read_source(folder)]
    read = segread(result).get_pixels_by_source_instance(
        instances, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(read, labels)

    monkeypatch.setattr(Segmenter, "labels", lambda *_, **_options: pytest.fail("segmented again"))
    before = result.read_bytes()
    predict(folder, model, tmp_path / "out", dicom_seg=True)
    assert result.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["case_7.dcm", "case_7.nii.gz"]


def test_what_is_no_folder_of_slices_is_refused(
    tmp_path: Path, model: Path, volume: NDArray[np.uint16]
) -> None:
    scans = tmp_path / "scans"
    write_series(tmp_path / "two" / "a", volume, series="3")
    write_series(tmp_path / "two" / "b", volume, series="4")
    write_series(tmp_path / "one", volume)
    scans.mkdir()
    (scans / "a.nii.gz").touch()
    for source, out, message in (
        (
            scans,
            "out",
            f"DICOM slices of one scan, but {scans} is a folder of images; give such a folder, or",
        ),
        (scans / "a.nii.gz", "out", f"but {scans / 'a.nii.gz'} is a file; give such a folder, or leave out"),
        (tmp_path / "two", "out", "holds 2 DICOM series and must hold one"),
        (
            tmp_path / "one",
            "one/out",
            f"would lie among the slices in {tmp_path / 'one'}; choose another --out",
        ),
    ):
        with pytest.raises(InputError) as caught:
            predict(source, model, tmp_path / out, dicom_seg=True)
        assert message in str(caught.value)
        assert not list((tmp_path / out).glob("[!.]*"))


def test_without_highdicom_the_command_says_what_to_install(
    tmp_path: Path,
    series: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "algorithm.dicom_seg")
    monkeypatch.setattr(Segmenter, "labels", lambda *_, **_options: pytest.fail("segmented in vain"))
    arguments = ["predict", str(series), "--model", str(model), "--out", str(tmp_path / "out"), "--dicom-seg"]
    assert decathlon(arguments) == 1
    assert capsys.readouterr().err == (
        "decathlon predict: --dicom-seg needs highdicom, which is not installed; "
        "pip install 'decathlon-unet[dicom]'\n"
    )


def test_a_real_series_and_its_segmentation(
    real_data: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "crlm"
    with zipfile.ZipFile(real_data / "abdomen_crlm_1004" / "dicom.zip") as archive:
        archive.extractall(folder)
    monkeypatch.setattr(Segmenter, "labels", lambda _, volume, *_rest, **_options: labels_of(volume[0]))
    arguments = ["predict", str(folder), "--model", str(model), "--out", str(tmp_path / "out"), "--dicom-seg"]
    assert decathlon(arguments) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'out' / 'crlm.dcm'}\n"
    assert err.splitlines()[0] == f"{folder} (1 of 1)"
    segmentation = dcmread(tmp_path / "out" / "crlm.dcm")
    slices = {header.SOPInstanceUID: header for header in map(dcmread, folder.rglob("*.dcm"))}
    assert len(slices) == 41
    for segment, refers_to, group, frame in frames(segmentation):
        source = slices[refers_to]
        hu = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
        np.testing.assert_array_equal(frame, labels_of(np.rint(hu).astype(int)) == segment)
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    assert segmentation.NumberOfFrames == 82
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDescription"):
        assert segmentation[keyword].value == source[keyword].value


def test_a_real_series_without_identifiers_is_refused(real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / "totalsegmentator_example" / "dicom.zip") as archive:
        archive.extractall(tmp_path)
    message = refusal(tmp_path)
    assert (
        "does not state its SOPClassUID, SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, to which"
        in message
    )
