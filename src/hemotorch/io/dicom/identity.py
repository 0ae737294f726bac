"""Whose a study is and when it was made, as headers say; and texts without the names of patients."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from hemotorch.io.dicom.header import ImageHeader

HIDDEN = "[patient]"  #: in place of a patient's name, id or birth date
#: Ids that de-identification and phantoms leave, which many patients share.
NO_ID = {"", "0", "00000000", "anon", "anonymous", "anonymized", "anonymised", "none", "unknown", "test", "patient"}
_SHORTEST_NAME, _SHORTEST_ID, _LONG = 3, 4, 6  # letters; a long one is hidden also inside other words
_WORD = re.compile(r"[^\W_]+")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae"})


@dataclass(frozen=True)
class Identity:
    """Of one study. study: StudyInstanceUID. date, time: of the study, as DICOM writes them. "" is not known."""

    study: str
    patient_id: str
    patient_name: str
    birth_date: str
    date: str
    time: str

    @staticmethod
    def of(header: ImageHeader) -> Identity:
        """As the header of an image says."""
        return Identity(
            header.study,
            header.patient_id,
            header.patient_name,
            header.birth_date,
            header.study_date,
            header.study_time,
        )

    @property
    def patient(self) -> tuple[str, str] | None:
        """What is the same in all studies of one patient, and of no other; None if the id is one that many share."""
        if self.patient_id.strip().casefold() in NO_ID:
            return None
        return self.patient_id.strip(), self.birth_date

    @property
    def moment(self) -> datetime | None:
        """When the study was made, to the second if its time is known; None if its date is not."""
        digits = re.sub(r"\D", "", self.date)[:8]
        clock = re.sub(r"\D", "", self.time.split(".")[0])[:6].ljust(6, "0")
        for text in (digits + clock, f"{digits}000000"):
            try:
                return datetime.strptime(text, "%Y%m%d%H%M%S")
            except ValueError:
                continue
        return None

    def secrets(self) -> frozenset[str]:
        """What must not be in a text: parts of the name, the id, and the birth date as people write it."""
        words = set()
        for word in _WORD.findall(self.patient_name.casefold()):
            if len(word) >= _SHORTEST_NAME and not word.isdigit():
                words |= {word, word.translate(_UMLAUTS), _plain(word)}
        if len(self.patient_id.strip()) >= _SHORTEST_ID:
            words.add(self.patient_id.strip().casefold())
        digits = re.sub(r"\D", "", self.birth_date)
        if len(digits) == 8:
            year, month, day = digits[:4], digits[4:6], digits[6:]
            words |= {"".join(order) for order in ((year, month, day), (day, month, year), (month, day, year))}
            for mark in "-./_ ":
                words |= {mark.join(order) for order in ((year, month, day), (day, month, year), (month, day, year))}
        return frozenset(words)


def hider(secrets: Iterable[str]) -> Callable[[str], str]:
    """What replaces each of these words in a text by HIDDEN, whatever the case of letters.

    A short word is hidden only if it stands alone: "li" is no part of "clinic".

    Args:
        secrets: in small letters, as `Identity.secrets` gives them.
    """
    patterns = []
    for word in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(word)
        patterns.append(pattern if len(word) >= _LONG else rf"(?<![^\W_]){pattern}(?![^\W_])")
    if not patterns:
        return str
    found = re.compile("|".join(patterns), re.IGNORECASE)
    return lambda text: found.sub(HIDDEN, unicodedata.normalize("NFC", text))


def _plain(word: str) -> str:
    """Without accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
