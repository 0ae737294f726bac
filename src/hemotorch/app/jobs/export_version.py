"""Export: a version's mask as NIfTI and as a DICOM SEG of the series that was read, and its numbers as JSON."""

from __future__ import annotations

from hemotorch import NOTICE, __version__
from hemotorch.app.jobs import Work
from hemotorch.app.jobs.requests import ExportWork, export_names
from hemotorch.app.layers import VERSION, layer_folder, read_layer, read_mask
from hemotorch.app.schemas import Piece, Refusal, Schema, Version
from hemotorch.io import dicom, write_mask
from hemotorch.io.dicom.out import NO_BLEEDING, write
from hemotorch.io.dicom.seg import segmentation_of
from hemotorch.io.dicom.source import Algorithm, SourceSeries
from hemotorch.labels import TYPES
from hemotorch.system.events import ProgressTask
from hemotorch.system.files import file_digest, write_text


class ExportRecord(Schema):
    """What the JSON of a version holds. sha256: of the files beside it."""

    version: Version
    lesions: list[Piece]
    abc2_ml: float | None
    longest_mm: float | None
    sha256: dict[str, str]
    hemotorch: str
    notice: str


def run(work: Work) -> None:
    """Writes the files, the JSON last. Raises InputError if the study or the version is gone."""
    wanted = ExportWork.model_validate_json(work.job.request)
    workspace, study = work.workspace, wanted.study
    workspace.library.row(study)
    version = workspace.versions.version(study, wanted.number)
    scan = workspace.library.scan(study)
    layer = f"{VERSION}:{wanted.number}"
    folder = layer_folder(workspace.library.folder(study), layer)
    record, mask = read_layer(workspace.library.folder(study), layer), read_mask(workspace.library.folder(study), layer)
    nifti_file, seg_file, json_file = (folder / name for name in export_names(study, wanted.number))
    why_no_seg = ""
    with ProgressTask("exporting", total=3, unit="file") as task:
        write_mask(scan, mask, nifti_file)
        written = [nifti_file]
        task.advance()
        if scan.source is None or scan.source.format != dicom.NAME:
            why_no_seg = "a DICOM SEG points at DICOM images, and this scan was none"
        elif not mask.any():
            why_no_seg = NO_BLEEDING
        else:
            source = SourceSeries.of(scan)
            why_no_seg = source.why_not
            if not why_no_seg:
                said = f"version {wanted.number}, drawn by a reader, begun from {version.base or 'nothing'}"
                algorithm = Algorithm(__version__, said, corrected=True)
                types = TYPES if record.typed else ()
                write(lambda: segmentation_of(source, mask, types, algorithm), seg_file)
                written.append(seg_file)
        task.advance()
        made = ExportRecord(
            version=version,
            lesions=record.lesions,
            abc2_ml=record.abc2_ml,
            longest_mm=record.longest_mm,
            sha256={path.name: file_digest(path) for path in written},
            hemotorch=__version__,
            notice=NOTICE,
        )
        write_text(json_file, made.model_dump_json(indent=2) + "\n")
        task.advance()
    if why_no_seg:
        workspace.queue.add_problem(work.job, Refusal(what=why_no_seg, where=seg_file.name))
    with workspace.queue.finish(work.job):
        pass
