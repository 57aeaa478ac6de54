"""Commands in emoji, which are written alike in every language.

In real pretraining text, emoji, units and brand names are written alike in all languages and connect them. Commands
have almost nothing of that kind, so some lines of the testbed's text have emoji beside them
(`midalign.testbed.corpus`).
"""

from __future__ import annotations

from midalign.testbed.world import Meaning

_INTENTS = {
    "cancel_all_timers": "⏰❎",
    "cancel_timer": "⏰❌",
    "climate_get_temperature": "🌡❓",
    "climate_set_temperature": "🌡🔧",
    "decrease_timer": "⏰➖",
    "get_current_date": "📅",
    "get_current_time": "🕐",
    "get_state": "❓",
    "get_weather": "⛅",
    "increase_timer": "⏰➕",
    "light_set": "🔆",
    "media_next": "⏭",
    "media_pause": "🎵⏸",
    "media_player_mute": "🔇",
    "media_player_unmute": "🔈",
    "media_previous": "⏮",
    "media_unpause": "🎵▶",
    "nevermind": "🤷",
    "pause_timer": "⏰⏸",
    "set_position": "📏",
    "set_volume": "🔊",
    "shopping_list_add_item": "🛒➕",
    "shopping_list_complete_item": "🛒✅",
    "start_timer": "⏰🏁",
    "timer_status": "⏰❓",
    "turn_off": "🛑",
    "turn_on": "✅",
    "unpause_timer": "⏰▶",
    "vacuum_clean_area": "🧹",
}
_DOMAINS = {"light": "💡", "fan": "🌀", "lock": "🔐"}
_NAMES = {
    "area": "🍳 🛏 🛋 🛁 🚶 🚗 💼 🌳 🪜 🕸 🌇 🍽 🧸 🧳 🧺 ⛱ 📚 🫙 🔨 🚪",
    "light": "🔦 🖊 📖 🌙 🕯 🛎",
    "appliance": "☕ 🔥 ♨ 👕 🍴 💧 🫖 🌬 🍞",
    "media": "📺 📻 📢 📽 🎶",
    "opening": "🏠 🌷 🪟 🔷",
    "lock": "🏡 🔙 💰 📫",
    "climate": "🌡 ❄",
    "place": "🏫 ✈ 🚉 🏋 🏥 🏪 🏛",
    "item": "🥛 🥖 🥚 🧈 🧀 🍚 🫘 🍵 🍬 🧂 🍎 🍌 🍅 🥔 🧅 🍗 🐟 🚰 🧃 🧼",
    "color": "white:⚪ black:⚫ red:🔴 orange:🟠 yellow:🟡 green:🟢 blue:🔵 purple:🟣 brown:🟤 pink:🌸",
    "cover": "awning:🏖 blind:🎚 curtain:🎭 door:🚪 garage:🚗 gate:⛩ shade:🌤 shutter:🧱 window:🪟",
    "hours": "🕰",
    "minutes": "⏱",
    "seconds": "💨",
}
_STATES = {"on": "✅", "off": "🛑", "locked": "🔒", "unlocked": "🔓", "open": "📂", "closed": "📁"}


def emoji_of(concept: str, slot: str = "") -> str:
    """The emoji of a concept such as ``"area/3"``, or of the unit of a number in a slot; empty where there is none."""
    category, _, which = concept.partition("/")
    if category == "number":
        return _NAMES.get(slot, "")
    names = _NAMES.get(category, "").split()
    if which.isdigit():
        return names[int(which)] if int(which) < len(names) else ""
    return dict(name.split(":") for name in names).get(which, "") or _STATES.get(concept.removeprefix("state:"), "")


def in_emoji(meaning: Meaning) -> str:
    """A command in emoji: what to do, to what kind of thing, and the values; whatever has no emoji is left out."""
    kinds = [_DOMAINS.get(value, "") for name, value in meaning.key.fixed if name == "domain"]
    values = [emoji_of(concept, slot) for slot, concept in meaning.values]
    return "".join([_INTENTS.get(meaning.intent, ""), *kinds, *values])
