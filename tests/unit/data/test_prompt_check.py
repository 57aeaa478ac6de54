"""Chat templates and tokenizers that would ask something else than training did, or than what stands in the data."""

import datetime
import logging
import random

import pytest
from tokenizers import processors
from transformers.utils import chat_template_utils

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_check import check_prompt
from midalign.data.prompt_tokens import prompt_ids, training_rows
from midalign.data.prompts import PROMPT_DATE, render, turns
from midalign.errors import ModelError
from midalign.records import Span, TaskExample
from tests.conftest import build_tokenizer

EXAMPLE = TaskExample("x:0", "slots", "eng_Latn", "wake me at 9", ("wake", "me", "at", "9"), (Span("time", 3, 4),))
TURNS = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}<s>assistant\n"
# As several multimodal models have it: a string is walked through letter by letter, and vanishes.
PARTS = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% endif %}{% endfor %}</s>\n{% endfor %}<s>assistant\n"
)
PARTS_BY_INDEX = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'][0]['text'] }}</s>\n{% endfor %}<s>assistant\n"
)
PARTS_OF_THE_USER = "{% for m in messages if m.role == 'user' %}<s>{{ m['content'][0]['text'] }}</s>{% endfor %}"


def instruction(example):
    return turns(example)[0]["content"]


def with_template(template):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [PARTS, PARTS_BY_INDEX], ids=["loop", "index"])
def test_a_template_that_reads_lists_of_parts_is_given_them(template):
    tokenizer = with_template(template)
    check_prompt(EXAMPLE, tokenizer)
    assert render(EXAMPLE, tokenizer) == render(EXAMPLE, with_template(TURNS))


def test_parts_and_no_system_turn():
    prompt = render(EXAMPLE, with_template(PARTS_OF_THE_USER)).text
    assert prompt == f"<s>{instruction(EXAMPLE)}\n\n{EXAMPLE.text}</s>"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<s>{{ m['role'] }}</s>{% endfor %}",  # no content at all
        "{% for m in messages if m.role == 'system' %}{{ m['content'] }}{% endfor %}",  # the instruction only
        "{{ raise_exception('give me tools') }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ messages[7]['content'].x }}",
        "{{ messages | tojson }}",  # with what JSON escapes, it is not the text
        "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
        "{% for m in messages %}{{ m['content'][:20] }}{% endfor %}",
        "{{ messages",
    ],
)
def test_a_template_that_drops_or_changes_the_text_is_refused(template):
    with pytest.raises(ModelError, match="chat template of the tokenizer"):
        check_prompt(EXAMPLE, with_template(template))
    with pytest.raises(ModelError):
        training_rows([EXAMPLE], with_template(template))


def test_a_template_that_ends_the_sequence_before_the_answer_is_refused_unless_every_turn_ends_so():
    ending = with_template("{% for m in messages %}{{ m['content'] }}\n{% endfor %}{{ eos_token }}")
    with pytest.raises(ModelError, match="ends the prompt in '</s>', the end of the sequence"):
        check_prompt(EXAMPLE, ending)
    check_prompt(EXAMPLE, with_template("{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"))


def test_of_several_templates_the_default_is_taken_and_none_without_one():
    tokenizer = with_template({"default": TURNS, "tool_use": "{{ tools }}"})
    assert render(EXAMPLE, tokenizer) == render(EXAMPLE, with_template(TURNS))
    with pytest.raises(ModelError, match="the chat templates 'rag', 'tool_use' and no 'default'"):
        render(EXAMPLE, with_template({"rag": TURNS, "tool_use": TURNS}))


def test_a_text_that_a_template_changes_is_refused_by_its_id():
    shouting = with_template(TURNS.replace("m['content']", "m['content'] | replace('&', '&amp;')"))
    check_prompt(EXAMPLE, shouting)
    with pytest.raises(ModelError, match="item x:7: its user text 'salt & pepper' is not in the prompt"):
        render(TaskExample("x:7", "slots", "eng_Latn", "salt & pepper"), shouting)


def test_a_short_instruction_that_the_text_happens_to_hold_does_not_hide_a_dropped_system_turn():
    dropping = with_template("{% for m in messages if m.role == 'user' %}<s>{{ m['content'] }}</s>{% endfor %}")
    assert render(EXAMPLE, dropping, AnswerFormat(system="at")).text == "<s>at\n\nwake me at 9</s>"
    assert render(EXAMPLE, dropping, AnswerFormat(system="")).text == "<s>wake me at 9</s>"


CLOCKS = {
    "llama": "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n",
    "smollm3": "{%- set today = strftime_now('%d %B %Y') -%}Today Date: {{ today }}\n",
    "iso": "{{ strftime_now('%Y-%m-%d') }}\n",
    "if defined": "{% if strftime_now is defined %}{{ strftime_now('%B %-d, %Y, %H:%M:%S') }}{% endif %}",
    "macro": "{% macro today() %}{{ strftime_now('%A, %j') }}{% endmacro %}{{ today() }}",
    "odd": "{{ strftime_now('%G week %V%%') }}",
}


class Clock(datetime.datetime):
    days = 0

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime(2025, 2, 3, 4, 5, 6) + datetime.timedelta(days=cls.days, seconds=cls.days)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_template_that_writes_the_date_writes_the_same_one_every_day_and_the_log_says_so(clock, monkeypatch, caplog):
    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    tokenizer = with_template("\n" + CLOCKS[clock] + TURNS)
    own = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    found = []
    for days in (0, 1, 40):
        monkeypatch.setattr(Clock, "days", days)
        check_prompt(EXAMPLE, tokenizer)
        found.append(prompt_ids(render(EXAMPLE, tokenizer), tokenizer))
    assert found[0] == found[1] == found[2]
    assert own != tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False), "it does ask"
    assert caplog.text.count(f"prompts have {PROMPT_DATE} on every day") == 1


def test_the_date_that_is_written_is_the_one_that_is_said():
    prompt = render(EXAMPLE, with_template(CLOCKS["llama"] + TURNS)).text
    assert prompt.startswith("Today Date: 26 Jul 2024\n<s>system\n")
    day = datetime.datetime(2024, 7, 26)
    for directive in (
        "%d %b %Y",
        "%d %B %Y",
        "%Y-%m-%d",
        "%A, %B %-d, %Y",
        "%a %e %m/%d/%y",
        "%j %F %D %H:%M:%S %I %p",
    ):
        written = render(EXAMPLE, with_template("{{ strftime_now('" + directive + "') }}" + TURNS)).text
        assert written.startswith(day.strftime(directive))


def test_a_date_that_is_not_written_is_not_said(caplog):
    """Llama 3.2 writes ``date_string`` where it is given; other templates write the date for tools only."""
    check_prompt(EXAMPLE, with_template("{% set date_string = '1 May' %}" + CLOCKS["llama"] + TURNS))
    check_prompt(EXAMPLE, with_template("{% if tools %}{{ strftime_now('%F') }}{% endif %}" + TURNS))
    assert not caplog.records


def test_the_beginning_of_a_template_is_kept_as_it_is():
    tokenizer = with_template("\n  {% set d = strftime_now('%d %b %Y') %}\n{{ d }}\n" + TURNS)
    messages = [{"role": "system", "content": instruction(EXAMPLE)}, {"role": "user", "content": EXAMPLE.text}]
    own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    today = datetime.datetime.now().strftime("%d %b %Y")
    assert own.replace(today, PROMPT_DATE) == render(EXAMPLE, tokenizer).text


def test_a_template_with_chance_in_it_is_refused():
    random.seed(1)
    tokenizer = with_template("{{ range(99999) | random }}" + TURNS)
    with pytest.raises(ModelError, match="a different prompt at each call"):
        check_prompt(EXAMPLE, tokenizer)


def adding(single):
    tokenizer = build_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize("single", ["$A", "<s> $A", "<s> $A </s>", "$A </s>", "$A </s> </s>", "<s> <s> $A <s> </s>"])
@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_does_not_end_in_what_a_tokenizer_appends(single, chat):
    tokenizer, plain = adding(single), adding("$A")
    if chat:
        tokenizer.chat_template = plain.chat_template = TURNS
    check_prompt(EXAMPLE, tokenizer)
    bare = prompt_ids(render(EXAMPLE, plain), plain)
    before = [] if chat else [1] * single.split("$A")[0].count("<s>")
    assert prompt_ids(render(EXAMPLE, tokenizer), tokenizer) == before + bare
    (row,) = training_rows([EXAMPLE], tokenizer)
    answer = [label for label in row["labels"] if label != -100]
    assert answer[-1] == 2
    assert answer.count(2) == 1
    if not chat:
        assert row["input_ids"].count(2) == 1


def test_a_tokenizer_in_python_that_appends_its_end_token():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    check_prompt(EXAMPLE, tokenizer)
    (row,) = training_rows([EXAMPLE], tokenizer)
    assert row["input_ids"].count(tokenizer.eos_token_id) == 1


def test_a_tokenizer_that_adds_tokens_where_it_is_told_not_to_is_refused():
    class Insisting(type(build_tokenizer())):
        def __call__(self, text, **options):
            found = super().__call__(text, **options)
            if not options.get("add_special_tokens", True):
                found["input_ids"] = [*found["input_ids"], 2]
            return found

    tokenizer = build_tokenizer()
    tokenizer.__class__ = Insisting
    with pytest.raises(ModelError, match=r"adds \['</s>'\] to every text"):
        check_prompt(EXAMPLE, tokenizer)


def test_tokens_that_do_not_spell_the_text_are_said(caplog):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "wake": 2, "me": 3}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>")
    with caplog.at_level(logging.WARNING):
        check_prompt(EXAMPLE, tokenizer)
    assert "item x:0: the tokens of its prompt decode to" in caplog.text
    assert "item x:0: the tokens of its gold answer decode to" in caplog.text
    caplog.clear()
    check_prompt(EXAMPLE, build_tokenizer())
    assert not caplog.text
