"""Whose a study is and when it was made, as headers say; and texts without the names of patients."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from datetime import datetime

from hemotorch.io.dicom.header import ImageHeader

HIDDEN = "[patient]"  #: in place of a patient's name, id or birth date
#: Ids that de-identification and phantoms leave, which many patients share.
NO_ID = {"", "0", "00000000", "anon", "anonymous", "anonymized", "anonymised", "none", "unknown", "test", "patient"}
_SHORTEST_NAME, _SHORTEST_ID = 3, 4  # letters; shorter ones would hide every second text
_FIRST_OF_CJK = "\u2e80"  # from here on Unicode has the letters of Chinese, Japanese and Korean
#: What de-identification, phantoms and examples have for a name: if all of a name is of these, it names nobody.
NO_NAME = {
    "anon", "anonymous", "anonymized", "anonymised", "deidentified", "removed", "hidden", "none", "unknown", "noname",
    "patient", "subject", "test", "example", "sample", "synthetic", "phantom", "demo", "study", "scan", "case", "head",
    "brain", "skull", "neck", "stroke", "perfusion", "mca", "angio", "contrast", "without", "with", "routine", "trauma",
    "cct",
}  # fmt: skip
_WORD = re.compile(r"[^\W_]+")
_LETTER, _SMALL, _CAPITAL = r"[^\W\d_]", "[a-zß-öø-ÿ]", "[A-ZÀ-ÖØ-Þ]"
#: Between two letters: "r|H" in MuellerHans, "T|M" in CTMueller.
_CAPITAL_BEGINS = f"(?-i:(?<={_SMALL})(?={_CAPITAL})|(?<={_CAPITAL})(?={_CAPITAL}{_SMALL}))"
#: Before and after a word: no letter beside one of its own, and no digit beside one.
_BEFORE = rf"(?:(?<!{_LETTER})(?={_LETTER})|(?<!\d)(?=\d)|(?=[\W_])|{_CAPITAL_BEGINS})"
_AFTER = rf"(?:(?<={_LETTER})(?!{_LETTER})|(?<=\d)(?!\d)|(?<=[\W_])|{_CAPITAL_BEGINS})"
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

    @staticmethod
    def of_all(headers: Iterable[ImageHeader]) -> Identity:
        """Of a study: of each value the first that one of its headers states. Scanners leave some out of localizers."""
        identities = dict.fromkeys(map(Identity.of, headers))
        columns = zip(*map(astuple, identities), strict=True)
        return Identity(*(next(filter(None, column), "") for column in columns))

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
        """What must not be in a text: parts of the name, the id, and the birth date as people write it.

        A name and an id that name nobody, see NO_NAME and NO_ID, are no secrets: of a patient called "HEAD^ROUTINE"
        every description would say "[patient] without contrast".
        """
        names = [word for word in _WORD.findall(self.patient_name.casefold()) if not word.isdigit()]
        without_blanks = [word for word in names if _has_no_blanks(word)]
        words = {*without_blanks, "".join(without_blanks)} - {""}
        names = [word for word in names if len(word) >= _SHORTEST_NAME]
        if not NO_NAME.issuperset(names):
            for word in names:
                words |= {word, word.translate(_UMLAUTS), _plain(word)}
        patient_id = self.patient_id.strip().casefold()
        if len(patient_id) >= _SHORTEST_ID and patient_id not in NO_ID | NO_NAME:
            words.add(patient_id)
        digits = re.sub(r"\D", "", self.birth_date)
        if len(digits) == 8:
            year, month, day = digits[:4], digits[4:6], digits[6:]
            words |= {"".join(order) for order in ((year, month, day), (day, month, year), (month, day, year))}
            for mark in "-./_ ":
                words |= {mark.join(order) for order in ((year, month, day), (day, month, year), (month, day, year))}
        return frozenset(words)


def hider(secrets: Iterable[str]) -> Callable[[str], str]:
    """What replaces each of these words in a text by HIDDEN, whatever the case of letters.

    A word is hidden only if it stands alone: "li" is no part of "clinic", and "contra" none of "contrast". Digits end
    a word of letters, a capital after a small letter begins one, and several of them may follow each other, as people
    call folders: MUELLER1950, MuellerHans, CTMueller, MUELLERHANS. Chinese, Japanese and Korean have no blanks between
    words: there, two letters or more are hidden wherever they are.

    Args:
        secrets: in small letters, as `Identity.secrets` gives them.
    """
    words = sorted((unicodedata.normalize("NFC", word) for word in secrets), key=lambda word: (-len(word), word))
    if not words:
        return str
    # Not more than four in a row: of names such as "aaa^aaaa^aaaaa" a long text would take forever.
    any_words = f"(?:{'|'.join(map(re.escape, words))}){{1,4}}"
    anywhere = [re.escape(word) for word in words if len(word) > 1 and _has_no_blanks(word)]
    found = re.compile("|".join([*anywhere, f"{_BEFORE}{any_words}{_AFTER}"]), re.IGNORECASE)
    return lambda text: found.sub(HIDDEN, unicodedata.normalize("NFC", text))


def _has_no_blanks(word: str) -> bool:
    """Whether it is in Chinese, Japanese or Korean letters, of which a part of a name has one to three."""
    return all(letter >= _FIRST_OF_CJK for letter in word)


def _plain(word: str) -> str:
    """Without accents."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
