"""Test sets by name, from a prepared cache: no network."""

from pathlib import Path

import pytest
from sacrebleu.dataset import DATASETS

from midalign.data.examples import read_examples
from midalign.data.parallel.corpus import read_parallel
from midalign.records import TaskExample
from tests.unit.data.parallel.corpora import DE, EN, fails

XML = """<dataset><doc id="d" origlang="x"><src lang="x"><p>{source}</p></src>
<ref lang="y" translator="refA"><p>{target}</p></ref></doc></dataset>"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """sacreBLEU's folder of downloaded sets, with two pairs of WMT23 unpacked in it."""
    wmt = DATASETS["wmt23"]
    monkeypatch.setattr(wmt, "_outdir", str(tmp_path / "wmt23"))
    monkeypatch.setattr(wmt, "_rawdir", str(tmp_path / "wmt23" / "raw"))
    for pair, *sides in (("en-de", ["one", "two"], ["eins", "zwei"]), ("de-en", ["drei"], ["three"])):
        path = Path(wmt._get_langpair_path(pair))
        path.parent.mkdir(parents=True, exist_ok=True)
        marked = ["".join(f'<seg id="{i}">{text}</seg>' for i, text in enumerate(side, start=1)) for side in sides]
        path.write_text(XML.format(source=marked[0], target=marked[1]))
    (tmp_path / "wmt23" / "raw" / "wmt23.v.0.1.tar.gz").write_text("downloaded and unpacked")
    return tmp_path / "wmt23"


def test_a_set_is_read_with_its_first_reference(cache):
    corpus = read_parallel("sacrebleu:wmt23/en-de")
    assert corpus.multiway() == {EN: ["one", "two"], DE: ["eins", "zwei"]}
    assert corpus.rows[1].id == "wmt23.en-de:1"


@pytest.mark.parametrize("languages", [None, ["de"], ["deu_Latn", "en"]])
def test_it_is_translated_in_its_own_direction(cache, languages):
    first, _ = read_examples("translation", "sacrebleu:wmt23/en-de", languages=languages)
    assert first == TaskExample("wmt23.en-de:0", "translation", EN, "one", reference="eins", target_language=DE)
    (back,) = read_examples("translation", "sacrebleu:wmt23/de-en", languages=languages)
    assert (back.language, back.text, back.target_language, back.reference) == (DE, "drei", EN, "three")


def test_faults_of_a_name_list_what_there_is(cache):
    fails("no test set 'wmt32'. Did you mean .*'wmt23'", "sacrebleu:wmt32/en-de")
    fails("'wmt23' has no pair 'en-fr'.*en-de", "sacrebleu:wmt23/en-fr")
    fails("'wmt20/tworefs' has no pair ''.*de-en", "sacrebleu:wmt20/tworefs")
    fails("no test set ''", "sacrebleu:")
    fails("has no 'fra_Latn'", "sacrebleu:wmt23/en-de", languages=["en", "fr"])
    fails("'sacrebleu' has no splits", "sacrebleu:wmt23/en-de", split="test")


def test_without_a_network_the_message_says_where_a_copy_goes(tmp_path, monkeypatch):
    def unreachable(*args):
        raise OSError("no network")

    monkeypatch.setattr(DATASETS["wmt23"], "maybe_download", unreachable)
    fails(r"cannot be loaded through sacreBLEU .no network.*\.sacrebleu/wmt23", "sacrebleu:wmt23/en-cs")
