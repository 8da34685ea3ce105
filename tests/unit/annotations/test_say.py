"""`broker annotate` and what it refuses before any server is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.annotations import send
from broker.annotations.kept import Kept, kept, line
from broker.annotations.record import Annotation
from broker.cli import app
from broker.config import Settings

SAYING = ["annotate", "ZTF21abiuvdk"]
ABOUT = {"survey": "ztf", "object": "ZTF21abiuvdk", "by": "alice"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing is said"),
        (["--class", "SN Ia", "--survey", "zft"], "no survey 'zft'"),
        (["--class", "SN Ia", "--note", "x", "--id", "one"], "--id names one annotation"),
        (["--redshift", "99"], "'redshift' must be a number from -0.1 to 20"),
        (["--forced", "missing.csv"], "cannot read missing.csv"),
        (["--forced", "no-band.csv"], "needed are midpointMjdTai, band, psfFlux, psfFluxErr"),
        (["--forced", "words.csv"], "words.csv, line 3: time, flux and error must be numbers"),
        (["--forced", "empty.csv"], "empty.csv has no point"),
    ],
)
def test_what_is_refused_ends_with_2(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = "mjd,band,psfFlux,psfFluxErr\n"
    Path("no-band.csv").write_text("mjd,psfFlux,psfFluxErr\n60000,1,1\n")
    Path("words.csv").write_text(head + "60000,r,1,1\n60001,r,faint,1\n")
    Path("empty.csv").write_text(head)
    done = CliRunner().invoke(app, [*SAYING, *words])
    assert done.exit_code == 2
    assert why in done.stderr


class Said:
    """What would be written, and what is known when it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known, self.sent = Kept(), list[Annotation]()
        monkeypatch.setattr(send, "known_of", lambda *_: self.known)
        monkeypatch.setattr(send, "send", lambda _, said: self.sent.extend(said))

    def __call__(self, **content: str) -> send.Told:
        return send.tell(Settings(), {**ABOUT, "kind": "class", **content})

    def processed(self) -> None:
        self.known = kept(b"".join(line(said, number) for number, said in enumerate(self.sent)))


def test_a_repeated_call_counts_once_and_a_change_back_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say = Said(monkeypatch)
    first, repeated = say(**{"class": "SN Ia"}), say(**{"class": "SN Ia"})
    assert first.annotation.id == repeated.annotation.id
    assert first.annotation.at
    say.processed()
    assert not say(**{"class": "SN Ia"}).written
    second = say(**{"class": "SN II"})
    say.processed()
    third = say(**{"class": "SN Ia"})
    assert third.written
    assert len({first.annotation.id, second.annotation.id, third.annotation.id}) == 3


def test_an_id_of_ones_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    say = Said(monkeypatch)
    assert say(id="tns-1", **{"class": "SN Ia"}).annotation.id == "tns-1"
