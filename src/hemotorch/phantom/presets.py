"""What a phantom dataset is made of: how many patients, how large their images, how many of them bleed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from hemotorch.errors import OptionError, nearest
from hemotorch.phantom.fields import generator

VERSION = "7"  #: of the phantom itself: raised whenever the same seed would give other pictures

#: How often each type leads in a positive scan (ours; CT-ICH's own 318 positive slices are half epidural, with
#: subarachnoid and intraventricular rare, which would leave too few of those in a test set).
LEADING = ("intraparenchymal", "subdural", "epidural", "subarachnoid", "intraparenchymal", "subdural",
           "intraventricular", "epidural")  # fmt: skip

MOST_HU = 100  #: of shading and offset: more, and brain is bone

CT_ICH_SUBJECTS = (*range(49, 59), *range(66, 131))  #: PhysioNet CT-ICH v1.3.1: 75 subjects


@dataclass(frozen=True)
class Chances:
    """How often a patient has each of what looks like bleeding and is none, or is scanned in another way; 0 to 1.

    contrast: contrast agent in arteries, veins and choroid plexus. dense_veins, dense_membranes: venous sinuses; falx,
    tentorium and dura brighter than usual. calcified: strong calcifications. wide: wide sulci or ventricles, unequal
    ones, a wide cisterna magna. surgery: burr holes, flaps and plates. shunt: a tube to a ventricle. metal: clips and
    coils. infarcts: old ones. finer: a round third ventricle, muscle in the neck. thin: slices of 0.6 to 2 mm. overlap:
    slices thicker than their distance. part: not the whole head. zoom: images narrower than the head. noise: up to 20
    HU. motion: in place of the usual share. rim: brightness under the skull amiss. bands: strong beam hardening. rings:
    of the detector. holder: bright head rests. bleeding: smaller, thinner and fainter bleeding.
    """

    contrast: float = 0.0
    dense_veins: float = 0.0
    dense_membranes: float = 0.0
    calcified: float = 0.0
    wide: float = 0.0
    surgery: float = 0.0
    shunt: float = 0.0
    metal: float = 0.0
    infarcts: float = 0.0
    finer: float = 0.0
    thin: float = 0.0
    overlap: float = 0.0
    part: float = 0.0
    zoom: float = 0.0
    noise: float = 0.0
    motion: float = 0.0
    rim: float = 0.0
    bands: float = 0.0
    rings: float = 0.0
    holder: float = 0.0
    bleeding: float = 0.0


#: As the default preset has them, for a network that is to leave real heads alone (ours).
VARIED = Chances(
    contrast=0.14,
    dense_veins=0.35,
    dense_membranes=0.4,
    calcified=0.3,
    wide=0.3,
    surgery=0.1,
    shunt=0.07,
    metal=0.05,
    infarcts=0.15,
    finer=1.0,
    thin=0.22,
    overlap=0.2,
    part=0.3,
    zoom=0.1,
    noise=0.15,
    motion=0.08,
    rim=0.3,
    bands=0.25,
    rings=0.15,
    holder=0.5,
    bleeding=0.45,
)


@dataclass(frozen=True)
class Preset:
    """What a phantom dataset is made of.

    patients: how many. positive: share of them with bleeding. size_px, pixel_mm, pixel_spread: side of the images, size
    of their pixels, and how much that varies, relative to it. slice_mm: distance between slices. vary: share of the
    scans whose pixel and slice sizes leave the usual range for the whole range of scanners. coverage_mm: from the
    lowest to the highest slice. shading_hu: largest amplitude of a smooth field over soft tissue. offset_hu: by how
    much soft tissue is brighter or darker at most, beyond the usual scanners. chances: of what is mistaken for
    bleeding. With all of these at 0, a seed gives the pictures that it always gave.
    """

    name: str
    patients: int
    positive: float
    size_px: int
    pixel_mm: float
    pixel_spread: float
    slice_mm: float
    vary: float
    coverage_mm: float = 140.0
    shading_hu: float = 0.0
    offset_hu: float = 0.0
    chances: Chances = field(default_factory=Chances)

    def case_name(self, index: int) -> str:
        """The case's file name: CT-ICH's subject numbers first, then on from 131."""
        if self.name == "ct-ich" and index < len(CT_ICH_SUBJECTS):
            return f"{CT_ICH_SUBJECTS[index]:03d}"
        number = index + 1
        if self.name == "ct-ich":
            number = index + 131 - len(CT_ICH_SUBJECTS)
        return f"{number:03d}"

    def leading_type(self, index: int, seed: int) -> str | None:
        """The type that leads in this case, None for one without bleeding; the share of each is kept exactly."""
        order = generator(seed, 0x5EED).permutation(self.patients)
        rank = int((order == index).argmax()) if index < self.patients else index
        if rank >= round(self.positive * self.patients):
            return None
        return LEADING[rank % len(LEADING)]


PRESETS = {
    "ct-ich": Preset("ct-ich", 75, 36 / 75, 512, 0.45, 0.05, 5.0, 0.1, 168.0),
    "small": Preset("small", 40, 0.6, 192, 1.2, 0.06, 6.2, 0.3),
    "demo": Preset("demo", 64, 0.68, 192, 1.2, 0.06, 6.2, 0.3),
    "default": Preset("default", 240, 0.6, 320, 0.72, 0.06, 5.0, 0.5, 145.0, 12.0, 6.0, VARIED),
}


def preset(
    name: str | Preset,
    patients: int | None = None,
    size: int | None = None,
    shading_hu: float | None = None,
    offset_hu: float | None = None,
    chances: Mapping[str, float] | None = None,
) -> Preset:
    """A named preset, with other values where some are given; another image size keeps the field of view.

    Raises OptionError for an unknown name, fewer than one patient, an image under 32 pixels, a negative HU, or chances
    that are unknown or not from 0 to 1.
    """
    if isinstance(name, Preset):
        chosen = name
    elif name in PRESETS:
        chosen = PRESETS[name]
    else:
        raise OptionError(f"unknown phantom preset '{name}'", todo=nearest(name, PRESETS))
    if patients is not None and patients < 1:
        raise OptionError(f"a phantom needs at least one patient, not {patients}")
    if size is not None and size < 32:
        raise OptionError(f"a phantom's images need at least 32 pixels a side, not {size}")
    if size is not None:
        chosen = replace(chosen, size_px=size, pixel_mm=chosen.pixel_mm * chosen.size_px / size)
    if patients is not None:
        chosen = replace(chosen, patients=patients)
    for hu, option in ((shading_hu, "shading"), (offset_hu, "offset")):
        if hu is not None and not 0 <= hu <= MOST_HU:
            raise OptionError(f"must be from 0 to {MOST_HU} HU, not {hu:g}", f"--{option}")
    if shading_hu is not None:
        chosen = replace(chosen, shading_hu=shading_hu)
    if offset_hu is not None:
        chosen = replace(chosen, offset_hu=offset_hu)
    return replace(chosen, chances=_changed(chosen.chances, chances or {}))


def _changed(chances: Chances, changes: Mapping[str, float]) -> Chances:
    """Chances with others by name."""
    for name, share in changes.items():
        if name not in asdict(chances):
            raise OptionError(f"unknown chance '{name}'", "--chance", nearest(name, asdict(chances)))
        if not 0 <= share <= 1:
            raise OptionError(f"'{name}' must be from 0 to 1, not {share:g}", "--chance")
    return replace(chances, **changes)
