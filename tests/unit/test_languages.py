import csv
import string
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.errors import LanguageError
from midalign.languages import Language, canonical

# The 51 languages (52 locales) of MASSIVE 1.1, with the code that FLORES-200 has for each.
MASSIVE = {
    "af-ZA": "afr_Latn", "am-ET": "amh_Ethi", "ar-SA": "arb_Arab", "az-AZ": "azj_Latn", "bn-BD": "ben_Beng",
    "ca-ES": "cat_Latn", "cy-GB": "cym_Latn", "da-DK": "dan_Latn", "de-DE": "deu_Latn", "el-GR": "ell_Grek",
    "en-US": "eng_Latn", "es-ES": "spa_Latn", "fa-IR": "pes_Arab", "fi-FI": "fin_Latn", "fr-FR": "fra_Latn",
    "he-IL": "heb_Hebr", "hi-IN": "hin_Deva", "hu-HU": "hun_Latn", "hy-AM": "hye_Armn", "id-ID": "ind_Latn",
    "is-IS": "isl_Latn", "it-IT": "ita_Latn", "ja-JP": "jpn_Jpan", "jv-ID": "jav_Latn", "ka-GE": "kat_Geor",
    "km-KH": "khm_Khmr", "kn-IN": "kan_Knda", "ko-KR": "kor_Hang", "lv-LV": "lvs_Latn", "ml-IN": "mal_Mlym",
    "mn-MN": "khk_Cyrl", "ms-MY": "zsm_Latn", "my-MM": "mya_Mymr", "nb-NO": "nob_Latn", "nl-NL": "nld_Latn",
    "pl-PL": "pol_Latn", "pt-PT": "por_Latn", "ro-RO": "ron_Latn", "ru-RU": "rus_Cyrl", "sl-SL": "slv_Latn",
    "sq-AL": "als_Latn", "sv-SE": "swe_Latn", "sw-KE": "swh_Latn", "ta-IN": "tam_Taml", "te-IN": "tel_Telu",
    "th-TH": "tha_Thai", "tl-PH": "tgl_Latn", "tr-TR": "tur_Latn", "ur-PK": "urd_Arab", "vi-VN": "vie_Latn",
    "zh-CN": "zho_Hans", "zh-TW": "zho_Hant",
}  # fmt: skip
NTREX = {
    "swa": "swh_Latn", "fas": "pes_Arab", "lav": "lvs_Latn", "aze-Latn": "azj_Latn", "msa": "zsm_Latn",
    "mon": "khk_Cyrl", "arb": "arb_Arab", "zho-CN": "zho_Hans", "zho-TW": "zho_Hant", "srp-Latn": "srp_Latn",
    "srp-Cyrl": "srp_Cyrl", "fra-CA": "fra_Latn-CA", "por-BR": "por_Latn-BR", "eng-US": "eng_Latn-US",
    "eng-GB": "eng_Latn-GB", "gsw-BE": "gsw_Latn-BE", "ckb-Arab": "ckb_Arab", "fil": "tgl_Latn",
}  # fmt: skip
TATOEBA = {"ara": "arb_Arab", "cmn": "zho_Hans", "pes": "pes_Arab", "lvs": "lvs_Latn", "est": "est_Latn"}
XSID = {"de": "deu_Latn", "zh": "zho_Hans", "sr": "srp_Cyrl", "gsw": "gsw_Latn", "nap": "nap_Latn"}
INTENTS = (  # the languages of home-assistant-intents
    "af ar bg bn ca cs cy da de-CH de el en es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kn ko kw lb lt lv "
    "ml mn ms nb ne nl pa pl pt-BR pt ro ru sk sl sr-Latn sr sv sw ta te th tr uk ur vi zh-CN zh-HK zh-TW"
)


@pytest.mark.parametrize(("code", "expected"), [*MASSIVE.items(), *NTREX.items(), *TATOEBA.items(), *XSID.items()])
def test_codes_of_each_corpus_become_the_flores_code(code, expected):
    assert canonical(code) == expected


def test_every_flores_200_code_is_its_own_canonical_form():
    nllb = pytest.importorskip("transformers.models.nllb.tokenization_nllb")
    codes = [*nllb.FAIRSEQ_LANGUAGE_CODES, "arb_Latn", "min_Arab", "sat_Olck"]  # FLORES-200 has these three besides
    assert len(codes) == 205
    assert {code: canonical(code) for code in codes} == {code: code for code in codes}


@pytest.mark.parametrize(
    "codes", [INTENTS.split(), list(MASSIVE), ["de", "de-st", "de-ba", "gsw", "gsw-BE", "gsw-ZH", "de-CH"]]
)
def test_languages_of_one_corpus_stay_apart(codes):
    assert len({canonical(code) for code in codes}) == len(codes)


@pytest.mark.parametrize(
    "written", ["deu_Latn", "DEU-LATN", "de", "DE", "deu", "ger", "de_DE", "de-at", " de ", "deu_Latn-DE"]
)
def test_case_separator_and_region_do_not_matter(written):
    assert canonical(written) == "deu_Latn"


def all_languages():
    text = resources.files("midalign").joinpath("languages.tsv").read_text(encoding="utf-8")
    return [
        Language.parse(row["code"]) for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    ]


def test_names_and_two_letter_codes_agree_with_cldr():
    babel = pytest.importorskip("babel")
    english = babel.Locale("en").languages
    listed = {language.iso639_1: language.name for language in all_languages() if language.iso639_1}
    assert {code for code in english if len(code) == 2} - set(listed) == {"no", "sh"}  # macrolanguages
    # Names differ in habit only: Bengali/Bangla, Church Slavonic/Slavic, ...
    different = {code for code, name in listed.items() if code in english and english[code] not in name}
    assert different <= {"bn", "cu", "dv", "ff", "ii", "kg", "mi", "ny", "os"}


def test_table_is_sound():
    languages = all_languages()
    assert len({language.code for language in languages}) == len(languages)
    assert len({language.name for language in languages}) == len(languages)
    two_letter = [language.iso639_1 for language in languages if language.iso639_1]
    assert len(set(two_letter)) == len(two_letter)
    for language in languages:
        base, script = language.code.split("-")[0].split("_")
        assert len(base) == 3
        assert base.islower()
        assert script == language.script
        assert len(script) == 4
        assert script.istitle()
        assert language.name
        assert language.family


def test_every_written_form_of_every_row_leads_back_to_the_row():
    for language in all_languages():
        for written in (language.code, language.code.upper(), language.code.replace("_", "-")):
            assert Language.parse(written) == language
        if language.iso639_1:
            assert Language.parse(language.iso639_1) == language


def test_unknown_code_names_value_place_and_nearest_by_code_and_by_name():
    with pytest.raises(LanguageError) as caught:
        canonical("deu_Ltn", where="corpus/x.txt")
    assert "corpus/x.txt" in str(caught.value)
    assert "'deu_Ltn'" in str(caught.value)
    assert "'deu_Latn' (German)" in str(caught.value)
    with pytest.raises(LanguageError, match=r"Did you mean 'fra_Latn' \(French\)"):
        canonical("Frensh")


def test_known_language_in_a_script_it_does_not_have_offers_the_ones_it_has():
    with pytest.raises(LanguageError, match=r"'srp_Cyrl' \(Serbian\) or 'srp_Latn'"):
        canonical("srp_Thai")


@pytest.mark.parametrize("code", ["", "x", "xx", "deu_", "_deu", "deu_Latn_Cyrl", "deu-DEU", "de.DE", "README", "a b"])
def test_what_is_no_code_is_an_error(code):
    with pytest.raises(LanguageError):
        canonical(code)


@settings(deadline=None)
@given(st.text(st.sampled_from(string.ascii_letters + "-_ 4"), max_size=12))
def test_parse_gives_a_row_whose_code_is_stable_or_raises(code):
    try:
        found = canonical(code)
    except LanguageError:
        return
    assert canonical(found) == found


@pytest.mark.data
def test_every_language_of_the_data_folder_has_a_code_of_its_own(data_folder: Path):
    ntrex = [line.split()[0] for line in (data_folder / "ntrex/LANGUAGES.tsv").read_text("utf-8").splitlines()]
    tatoeba = {file.name.split(".")[1].removesuffix("-eng") for file in (data_folder / "tatoeba").iterdir()}
    xsid = {file.name.split(".")[0] for file in (data_folder / "xsid").glob("*.conll")}
    assert len(ntrex) > 100
    for codes in (ntrex, tatoeba, xsid):
        assert len({canonical(code) for code in codes}) == len(codes)
