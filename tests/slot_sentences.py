"""Sentences with slots that are hard to write or to read back: without spaces, with colons, bars and semicolons."""

from midalign.records import Span, TaskExample


def slots_of(text, words, spans=(), intent="go"):
    return TaskExample(f"x:{text}", "slots", "eng_Latn", text, tuple(words), tuple(spans), intent)


SENTENCES = [
    slots_of("turn on the big light", ["turn", "on", "the", "big", "light"], [Span("device", 2, 5)]),
    slots_of("开大灯", "开大灯", [Span("the device", 1, 3)]),
    slots_of("wake me  at 5:30; twice", ["wake", "me", "at", "5:30", ";", "twice"], [Span("time", 3, 4)]),
    slots_of("a | b", ["a", "|", "b"], [Span("x:y", 0, 1), Span("z", 2, 3)]),
    slots_of("nothing here", ["nothing", "here"]),
    slots_of("so called  new\u00a0york", ["so", "called", "new\u00a0york"], [Span("city", 2, 3)]),
    slots_of("cannot", ["can", "not", "?"], [Span("w", 0, 2)]),  # the words do not spell the text
]
