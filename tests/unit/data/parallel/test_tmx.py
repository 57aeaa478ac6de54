"""Translation memories."""

import gzip
import logging

import pytest

from midalign.data.parallel.corpus import read_parallel
from midalign.errors import DataError, LanguageError
from tests.unit.data.parallel.corpora import DE, EN, TR, fails

HEAD = """<?xml version="1.0" encoding="{}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4">
<header srclang="en"/>
<body>
"""
UNITS = """<tu tuid="1">
  <tuv xml:lang="en-US"><seg>one &amp; <hi>two</hi></seg></tuv>
  <tuv xml:lang="DE"><note>n</note><seg>eins <bpt i="1">&lt;b&gt;</bpt>und<ept i="1">&lt;/b&gt;</ept>
     zwei</seg></tuv>
</tu>
<tu><tuv lang="en"><seg>three</seg></tuv><tuv lang="tr"><seg>üç</seg></tuv></tu>
"""


def tmx(path, units=UNITS, encoding="utf-8"):
    text = (HEAD.format(encoding) + units + "</body>\n</tmx>\n").encode(encoding)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize(("name", "encoding"), [("m.tmx", "utf-8"), ("m.tmx", "utf-16"), ("m.tmx.gz", "utf-8")])
def test_units_are_rows_in_the_languages_of_their_variants(tmp_path, name, encoding):
    corpus = read_parallel(tmx(tmp_path / name, encoding=encoding))
    assert [dict(row.texts) for row in corpus.rows] == [{EN: "one & two", DE: "eins und zwei"}, {EN: "three", TR: "üç"}]
    assert [row.id for row in corpus.rows] == ["m:0", "m:1"]


def test_only_units_in_the_languages_asked_for_are_read(tmp_path, caplog):
    tmx(
        tmp_path / "m.tmx",
        UNITS + '<tu><tuv xml:lang="qq"><seg>x</seg></tuv><tuv xml:lang="en"><seg>y</seg></tuv></tu>',
    )
    fails(r"m\.tmx:12: unknown language 'qq'", tmp_path / "m.tmx", LanguageError)
    with caplog.at_level(logging.WARNING):
        corpus = read_parallel(tmp_path / "m.tmx", languages=["tr", "en"])
    assert [row.id for row in corpus.rows] == ["m:1"]
    assert "left out 1 units without two of the languages" in caplog.text
    fails("has no 'fra_Latn'.*deu_Latn, eng_Latn, tur_Latn", tmp_path / "m.tmx", languages=["en", "fr"])


def test_a_folder_of_memories_is_read_whole(tmp_path):
    tmx(tmp_path / "a.tmx")
    tmx(tmp_path / "b.tmx")
    assert [row.id for row in read_parallel(tmp_path).rows] == ["a:0", "a:1", "b:0", "b:1"]


@pytest.mark.parametrize(
    ("units", "says"),
    [
        ("<tu><tuv><seg>x</seg></tuv></tu>", r"m\.tmx:6: a <tuv> without a language"),
        ('<tuv xml:lang="en"><seg>x</seg></tuv>', r"m\.tmx:6: .*outside a <tu>"),
        ("<tu>", r"m\.tmx:6: not valid XML \(mismatched tag"),
        ("<tu>&nbsp;</tu>", r"m\.tmx:6|has no rows"),
        (
            '<tu><tuv xml:lang="en"><seg>x</seg></tuv><tuv xml:lang="eng"><seg>y</seg></tuv></tu>',
            "two segments in eng_Latn",
        ),
        ('<tu><tuv xml:lang="en"><seg>x</seg></tuv><tuv xml:lang="de"><seg> </seg></tuv></tu>', r"m\.tmx:6: empty"),
        ("", "has no rows"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, units, says):
    fails(says, tmx(tmp_path / "m.tmx", units), DataError)


def test_other_xml_is_no_memory_and_entities_are_not_expanded_without_end(tmp_path):
    (tmp_path / "x.tmx").write_text("<html><body/></html>")
    fails("XML, but not TMX", tmp_path / "x.tmx")
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    body = '<tu><tuv xml:lang="en"><seg>&l11;</seg></tuv><tuv xml:lang="de"><seg>x</seg></tuv></tu>'
    (tmp_path / "x.tmx").write_text(f'<!DOCTYPE tmx [<!ENTITY l0 "lol">{laughs}]><tmx><body>{body}</body></tmx>')
    fails("not valid XML", tmp_path / "x.tmx")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    body = body.replace("&l11;", "a&e;")
    (tmp_path / "x.tmx").write_text(
        f'<!DOCTYPE tmx [<!ENTITY e SYSTEM "file://{secret}">]><tmx><body>{body}</body></tmx>'
    )
    try:
        texts = [text for row in read_parallel(tmp_path / "x.tmx").rows for text in row.texts.values()]
    except DataError:
        return
    assert not any("secret" in text for text in texts)
