"""What a recipe's data comes out as: splits that share nothing, held-out pairs that are never trained on."""

import json
import logging
import unicodedata

import pytest

from midalign.data.examples import read_examples
from midalign.errors import DataError, LanguageError, RecipeError
from midalign.recipe.data import (
    _held_out,
    _read_where_there,
    data_paths,
    read_pair_data,
    read_probe_corpus,
    read_task_data,
    scored_languages,
)
from midalign.recipe.file import build_recipe
from tests.tiny_world import LANGUAGES, SPLIT_SIZES, recipe_content, write_lines, write_slots

CODES = {"en": "eng_Latn", "de": "deu_Latn", "ru": "rus_Cyrl"}


@pytest.fixture
def recipe(tmp_path):
    """A factory of recipes on data below the test's folder."""
    write_slots(tmp_path / "slots")
    write_lines(tmp_path / "lines")
    write_lines(tmp_path / "probe", "again")

    def made(*overrides):
        return build_recipe(recipe_content(tmp_path), overrides)

    return made


def numbers(examples, language):
    return {int(e.id.rpartition(":")[2]) for e in examples if e.language == language}


def test_each_split_holds_the_languages_that_it_is_for(recipe):
    data = read_task_data(recipe())
    assert {e.language for e in data.train} == {"eng_Latn"}
    assert {e.language for e in data.dev} == {"eng_Latn", "deu_Latn"}
    assert {e.language for e in data.test} == {"eng_Latn", "deu_Latn", "rus_Cyrl"}
    assert (len(data.train), len(data.dev), len(data.test)) == (12, 8, 12)
    only = read_task_data(recipe("task.dev_languages=supervised"))
    assert {e.language for e in only.dev} == {"eng_Latn"}


def test_both_directions_of_a_translation_stay_on_the_same_side_of_train_and_dev(recipe, tmp_path):
    made = recipe(
        "task.name=translation", f"task.data={tmp_path / 'lines'}", "task.format=auto", "task.dev_split=train",
        "task.dev_share=0.4", "task.test_split=train", "task.directions=both", "languages.supervised=[de]",
        "languages.aligned=[ru]", "languages.unseen=[]",
    )  # fmt: skip
    assert made.task.directions == "both"
    with pytest.raises(DataError, match=r"every item of task\.dev_split is in task\.test_split"):
        read_task_data(made)  # the corpus has no splits
    examples = read_examples("translation", tmp_path / "lines", languages=["de"], directions="both")
    forth, back = ([e for e in examples if e.language == code] for code in ("eng_Latn", "deu_Latn"))
    assert [e.text for e in back] == [e.reference for e in forth]
    assert [_held_out(e.id, 0.4) for e in back] == [_held_out(e.id, 0.4) for e in forth]
    with pytest.raises(RecipeError, match="directions = 'both' is for name: translation, not slots"):
        recipe("task.directions=both")


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("alias", [False, True])
def test_dev_cut_from_train_goes_by_sentence_number_in_every_language(recipe, split, alias):
    """With ``valid`` for one and ``dev`` for the other it is still the same split."""
    dev_split = {"dev": "valid", "train": "train"}[split] if alias else split
    made = recipe(
        f"task.train_split={split}", f"task.dev_split={dev_split}", "task.dev_share=0.4",
        "languages.supervised=[en, de]", "languages.aligned=[ru]", "languages.unseen=[]",
    )  # fmt: skip
    data = read_task_data(made)
    size = SPLIT_SIZES["train" if split == "train" else "valid"]
    dev = numbers(data.dev, "eng_Latn")
    assert 0 < len(dev) < size
    for language in ("deu_Latn", "rus_Cyrl"):
        assert numbers(data.dev, language) == dev
    for language in ("eng_Latn", "deu_Latn"):
        assert numbers(data.train, language) == set(range(size)) - dev
    assert numbers(data.train, "rus_Cyrl") == set()


def test_aligned_languages_need_no_task_data(recipe, tmp_path, caplog):
    for split in ("train", "valid", "test"):
        (tmp_path / "slots" / f"de.{split}.conll").unlink()
    for overrides in ((), ("task.dev_split=train", "task.dev_share=0.3"), ("languages.aligned=[en, de]",)):
        made = recipe(*overrides)
        with caplog.at_level(logging.WARNING):
            data = read_task_data(made)
        assert {e.language for e in data.dev} == {"eng_Latn"}
        assert {e.language for e in data.test} == {"eng_Latn", "rus_Cyrl"}
        assert scored_languages(made, data) == ("eng_Latn", "rus_Cyrl")
        assert "no test item in deu_Latn, so nothing is scored there" in caplog.text
    (tmp_path / "slots" / "ru.test.conll").unlink()
    with pytest.raises(LanguageError, match="rus_Cyrl"):
        read_task_data(recipe())


def test_test_items_of_a_translation_stand_in_the_order_in_which_they_are_answered(recipe, tmp_path):
    made = recipe(
        "task.name=translation", f"task.data={tmp_path / 'lines'}", "task.format=auto", "languages.supervised=[ru]",
        "languages.aligned=[de]", "languages.unseen=[]",
    )  # fmt: skip
    needed, wished = ("deu_Latn",), ("rus_Cyrl",)  # in the other order than the recipe's
    found = _read_where_there(made, "test", needed, wished)
    asked = read_examples("translation", tmp_path / "lines", languages=made.languages.all)
    assert [e.id for e in found] == [e.id for e in asked]
    (tmp_path / "lines" / "rus.txt").unlink()
    assert {e.target_language for e in _read_where_there(made, "test", needed, wished)} == {"deu_Latn"}
    with pytest.raises(DataError, match="has no 'rus_Cyrl'"):
        _read_where_there(made, "test", wished, needed)


@pytest.mark.parametrize("named", ["germn", ""])
def test_rows_of_an_unknown_language_are_no_missing_language(recipe, tmp_path, named):
    (tmp_path / "mood").mkdir()
    for split in ("train", "dev", "test"):
        row = {"prompt": split, "completion": "good"} | ({"language": named} if named else {})
        (tmp_path / "mood" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    overrides = ["task.name=chat", "task.format=auto", "languages.unseen=[]", "languages.low_resource=[]"]
    made = recipe(*overrides, f"task.data={tmp_path / 'mood'}")
    with pytest.raises(LanguageError, match=named or "ask for exactly one language"):
        _read_where_there(made, "test", ("eng_Latn",), ("deu_Latn",))


def test_a_fault_in_the_data_of_an_aligned_language_is_no_missing_language(recipe, tmp_path):
    (tmp_path / "slots" / "de.valid.conll").write_text("1\tword\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"de\.valid\.conll"):
        read_task_data(recipe())


def test_a_label_may_be_missing_in_a_split_but_not_in_all(recipe, tmp_path):
    for name in ("en.train", "en.test", "de.test", "ru.test"):
        rewrite(tmp_path / "slots" / f"{name}.conll", "B-", "B-rare_")
    everything = [span.label for part in read_task_data(recipe()) for e in part for span in e.spans]
    rare, usual = (next(x for x in everything if x.startswith("rare") is which) for which in (True, False))
    data = read_task_data(recipe(f"task.labels=[{rare}, {usual}]"))
    assert [span.label for part in data for e in part for span in e.spans] == everything
    with pytest.raises(DataError, match=r"task\.labels names elsewhere, which no span has in any split"):
        read_task_data(recipe(f"task.labels=[{rare}, {usual}, elsewhere]"))


def test_limits_are_per_language_and_take_the_first(recipe):
    data = read_task_data(recipe("task.limit_train=5", "task.limit_dev=2", "task.limit_test=3"))
    assert [e.id for e in data.train] == [f"en.train:{i}" for i in range(5)]
    assert [e.id for e in data.dev] == ["de.valid:0", "de.valid:1", "en.valid:0", "en.valid:1"]
    assert len(data.test) == 9


def rewrite(path, old, new):
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_a_dev_or_test_text_is_never_trained_on_and_the_log_counts_them(recipe, tmp_path, caplog):
    rewrite(tmp_path / "slots" / "en.train.conll", "train3", "test1")
    rewrite(tmp_path / "slots" / "en.train.conll", "train5", "valid2")
    rewrite(tmp_path / "slots" / "de.valid.conll", "valid0", "test0")
    with caplog.at_level(logging.WARNING):
        data = read_task_data(recipe())
    assert "left out 2 of 12 items of task.train_split" in caplog.text
    assert "left out 1 of 8 items of task.dev_split" in caplog.text
    splits = [{(e.language, e.text) for e in part} for part in data]
    assert all(not splits[a] & splits[b] for a, b in ((0, 1), (0, 2), (1, 2)))


def write_chat(folder, **splits):
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        text = "".join(json.dumps(row | {"completion": [{"role": "assistant", "content": "x"}]}) + "\n" for row in rows)
        (folder / f"en.{split}.jsonl").write_text(text)
    return [
        f"task.data={folder}", "task.name=chat", "task.format=auto", "languages.unseen=[]", "languages.low_resource=[]",
    ]  # fmt: skip


def asking(text, *before):
    return {"prompt": [*before, {"role": "user", "content": text}]}


@pytest.mark.parametrize(
    "form",
    [
        lambda text: f"{text} ",
        lambda text: f"\u00a0{text.replace(' ', '  ')}",
        lambda text: unicodedata.normalize("NFD", text),
    ],
    ids=["blank", "blanks", "NFD"],
)
def test_a_text_in_another_form_of_unicode_or_with_other_blanks_is_the_same_text(recipe, tmp_path, form):
    overrides = write_chat(
        tmp_path / "mood", train=[asking(form("schöne Grüße")), asking(" other ")], dev=[asking("dev")],
        test=[asking("schöne Grüße")],
    )  # fmt: skip
    assert [example.text for example in read_task_data(recipe(*overrides)).train] == [" other "]
    for code in ("eng", "deu"):
        text = "".join(f"{code} schöner Satz {number}\n" for number in range(20))
        (tmp_path / "lines" / f"{code}.txt").write_text(text, encoding="utf-8")
    made = recipe("parallel.held_out=0", "languages.aligned=[de]", "languages.unseen=[]", "languages.low_resource=[]")
    train, _ = read_pair_data(made, {form(f"deu schöner Satz {number}") for number in range(15)})
    assert {pair.target for pair in train} == {f"deu schöner Satz {number}" for number in range(15, 20)}


def test_rows_of_chat_that_differ_in_their_system_turn_or_tools_are_not_the_same(recipe, tmp_path):
    def row(document, name):
        system = {"role": "system", "content": f"Document: {document}"}
        return asking("Summarise the document.", system) | {"tools": [{"name": name}]}

    overrides = write_chat(
        tmp_path / "mood", train=[row("a", "clock"), row("b", "clock"), row("b ", "alarm"), row("c", "clock")],
        dev=[row("c", "clock")], test=[row("b", "alarm")],
    )  # fmt: skip
    kept = read_task_data(recipe(*overrides)).train
    found = [(example.messages[0]["content"][-1], example.tools[0]["name"]) for example in kept]
    assert found == [("a", "clock"), ("b", "clock")]


def test_a_test_text_is_kept_out_even_beyond_the_test_limit(recipe, tmp_path):
    rewrite(tmp_path / "slots" / "en.train.conll", "train3", "test3")
    data = read_task_data(recipe("task.limit_test=1"))
    assert "call at test3" not in {e.text for e in data.train}


@pytest.mark.parametrize(
    ("overrides", "place"),
    [(["task.dev_split=test"], "task.dev_split"), (["task.train_split=test"], "task.train_split")],
)
def test_choosing_on_or_training_on_the_test_set_is_refused(recipe, overrides, place):
    with pytest.raises(DataError, match=rf"every item of {place}"):
        read_task_data(recipe(*overrides))


def test_held_out_pairs_share_no_text_with_training_pairs(recipe, tmp_path, caplog):
    lines = (tmp_path / "lines" / "eng.txt").read_text(encoding="utf-8").splitlines()
    lines[7] = lines[3] = "the same sentence twice"
    (tmp_path / "lines" / "eng.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for held_out in range(1, 5):
        for directions in ("english", "all"):
            made = recipe(
                f"parallel.held_out={held_out}", f"parallel.directions={directions}", "languages.aligned=[de, ru]",
                "languages.unseen=[]",
            )  # fmt: skip
            train, aside = read_pair_data(made)
            texts = [{t for p in part for t in (p.source, p.target)} for part in (train, aside)]
            assert not texts[0] & texts[1]
            couples = {(p.source_language, p.target_language) for p in train}
            assert len(couples) == (2 if directions == "english" else 3)
            assert len(aside) == held_out * len(couples)
            assert len({p.id for p in aside}) == held_out, "the same sentences in every language"
            assert len(train) >= (20 - held_out - 1) * len(couples)


def test_files_of_pairs_in_different_orders_hold_out_the_same_english_sentences(recipe, tmp_path):
    (tmp_path / "moses").mkdir()
    for two, order in (("de", range(40)), ("ru", reversed(range(40)))):
        numbers = list(order)
        for side in ("en", two):
            text = "".join(f"{side} sentence {number}\n" for number in numbers)
            (tmp_path / "moses" / f"pairs.en-{two}.{side}").write_text(text, encoding="utf-8")
    train, aside = read_pair_data(
        recipe(
            f"parallel.data={tmp_path / 'moses'}", "parallel.format=moses", "parallel.held_out=8",
            "languages.aligned=[de, ru]", "languages.unseen=[]",
        )
    )  # fmt: skip
    assert (len(aside), len({pair.source for pair in aside})) == (16, 8)
    assert len(train) == 2 * 32, "no pair is lost to a sentence that only the other language holds out"


def test_at_most_a_fifth_is_held_out_and_the_limit_counts_training_pairs(recipe):
    train, aside = read_pair_data(recipe("parallel.held_out=1000"))
    assert (len(train), len(aside)) == (16, 4)
    train, aside = read_pair_data(recipe("parallel.limit_per_language=7"))
    assert (len(train), len(aside)) == (7, 3)


def test_the_same_pairs_are_held_out_whatever_the_limit(recipe):
    assert read_pair_data(recipe()).held_out == read_pair_data(recipe("parallel.limit_per_language=2")).held_out


def test_chunks_of_long_pairs_share_no_sentence_with_what_is_held_out_or_evaluated(recipe, tmp_path):
    for name in ("eng", "deu"):
        path = tmp_path / "lines" / f"{name}.txt"
        lines = path.read_text(encoding="utf-8").splitlines()
        # Two sentences a line; the second is the same in every fifth line, so that a held-out one comes again.
        text = "".join(f"{line}. {name.title()} {number % 5}.\n" for number, line in enumerate(lines))
        path.write_text(text, encoding="utf-8")
    whole = read_pair_data(recipe())
    train, aside = read_pair_data(recipe("parallel.chunks=sentences"), {"ruf um a de. Other."})
    assert {pair.id.rpartition(".")[0] for pair in aside} == {pair.id for pair in whole.held_out}
    assert len(aside) == 2 * len(whole.held_out)
    assert len(whole.train) < len(train) < 2 * len(whole.train)
    texts = [{text for pair in part for text in (pair.source, pair.target)} for part in (train, aside)]
    assert not texts[0] & texts[1]
    assert "ruf um a de." not in texts[0]
    assert not any(". " in text for text in texts[0])


def test_an_aligned_language_none_of_whose_pairs_is_left_is_refused_by_name(recipe, tmp_path):
    made = recipe("languages.aligned=[de, ru]", "languages.unseen=[]")
    german = set((tmp_path / "lines" / "deu.txt").read_text(encoding="utf-8").splitlines())
    assert {p.target_language for p in read_pair_data(made).train} == {"deu_Latn", "rus_Cyrl"}
    with pytest.raises(DataError, match="every pair of eng_Latn and deu_Latn shares a text"):
        read_pair_data(made, german)


def test_a_supervised_language_none_of_whose_items_is_left_is_refused_by_name(recipe, tmp_path):
    made = recipe("languages.supervised=[en, de]", "languages.aligned=[ru]", "languages.unseen=[]")
    for i in range(SPLIT_SIZES["train"]):
        rewrite(tmp_path / "slots" / "de.train.conll", f"train{i}\t", f"test{i % 4}\t")
        rewrite(tmp_path / "slots" / "de.train.conll", f"train{i}\n", f"test{i % 4}\n")
    with pytest.raises(DataError, match="no train item is left in deu_Latn"):
        read_task_data(made)


def test_no_aligned_language_gives_no_pairs(recipe):
    assert read_pair_data(recipe("languages.aligned=[]", "languages.unseen=[de, ru]")) == ([], [])


def test_english_may_be_an_aligned_language_by_name(recipe):
    with_english = read_pair_data(recipe("languages.aligned=[en, de]"))
    assert with_english == read_pair_data(recipe())


def test_the_probe_corpus_follows_languages_and_limit(recipe):
    corpus = read_probe_corpus(recipe("probe.languages=[en, ru]", "probe.limit=5"))
    assert set(corpus.languages) == {"eng_Latn", "rus_Cyrl"}
    assert len(corpus.rows) == 5


def test_a_probe_without_a_row_in_all_languages_is_refused_when_it_is_read(recipe, tmp_path):
    for code in ("deu", "swh"):
        (tmp_path / f"eng-{code}.tsv").write_text(f"a word of it\t{code} here too\n")
    with pytest.raises(DataError, match=rf"^{tmp_path}: no row has all of eng_Latn, deu_Latn, swh_Latn"):
        read_probe_corpus(recipe(f"probe.data={tmp_path}", "probe.format=tsv", "probe.limit=null"))


def test_data_paths_are_all_that_is_read_and_a_prefix_is_its_files(recipe, tmp_path):
    for code in ("en", "de"):
        (tmp_path / f"train.{code}").write_text("a\n")
    paths = data_paths(recipe("probe.data=someone/corpus", f"parallel.data={tmp_path / 'train'}"))
    assert paths[1:] == [*(str(tmp_path / name) for name in ("slots", "train.de", "train.en")), "someone/corpus"]
    template = str(tmp_path / "template.jinja")
    assert data_paths(recipe(f"training.chat_template_path={template}"))[-1] == template
    paths = data_paths(recipe("probe.data=lines", "parallel.data=lines", f"task.data={tmp_path / 'train'}"))
    assert paths[1:] == [*(str(tmp_path / name) for name in ("train.de", "train.en")), "lines", "lines"]


def test_examples_of_a_language_given_twice_are_read_once(recipe, tmp_path):
    once = read_examples("slots", tmp_path / "slots", languages=["eng_Latn"])
    assert read_examples("slots", tmp_path / "slots", languages=["eng_Latn", "eng_Latn"]) == once


def test_every_language_of_the_tiny_world_is_there():
    assert set(LANGUAGES) == set(CODES)
