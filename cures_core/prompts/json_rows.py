"""Knows JSON rows: one fast parser for good ones, and for the others a reason instead of a parser's message."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from cures_core.prompts.defects import Flaw
from cures_core.prompts.lines import CHUNK, ByteStream

Parsed = tuple[dict[str, Any] | None, tuple[Flaw, ...]]

_KEYS = re.compile(rb'"[ \t\r\n]*:')
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},]|"', re.DOTALL)
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"


def parse_object(raw: bytes) -> Parsed:
    """(the row's object or None, what is wrong with the JSON)."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _rescue(raw)
    if type(record) is not dict:
        return None, (("not_an_object", f"it is {_type_name(record)}"),)
    # As many colons, or colons after strings, as keys: none occurs twice.
    if raw.count(b":") == len(record) or len(_KEYS.findall(raw)) == len(record):
        return record, ()
    try:
        twice = _repeated_keys(raw)
    except RecursionError:
        return None, (("invalid_json", "nested too deeply"),)
    return (None, (("duplicate_key", ", ".join(twice)),)) if twice else (record, ())


def parse_array(raw: bytes) -> dict[str, object]:
    """The elements of an array that `parse_object` has told to be none of its objects, under their numbers."""
    return {str(i): value for i, value in enumerate(orjson.loads(raw))}


def exact_numbers(raw: bytes) -> dict[str, object]:
    """The object with its numbers as they are spelled: binary floats change 0.1 and long integers."""
    try:
        return json.loads(raw, parse_int=str, parse_float=str)  # type: ignore[no-any-return]
    except RecursionError:  # this parser stops some levels before the fast one
        return orjson.loads(raw)  # type: ignore[no-any-return]


def _repeated_keys(raw: bytes) -> list[str]:
    top: list[tuple[str, Any]] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal top
        top = pairs  # called innermost first: what stays is the row's own object
        return dict(pairs)

    json.loads(raw, object_pairs_hook=note)
    return sorted(key for key, times in Counter(key for key, _ in top).items() if times > 1)


def _rescue(raw: bytes) -> Parsed:
    """Say why orjson refused a row; NaN and lone surrogates are let through for the later checks to name the field."""
    if raw.startswith(_BOM):
        record, found = parse_object(raw[len(_BOM) :])
        return record, (("bom_at_start", ""), *found)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        flaws: list[Flaw] = [("invalid_utf8", f"byte 0x{raw[error.start]:02x} at {error.start}")]
        if re.search(rb"\xed[\xa0-\xbf][\x80-\xbf]", raw):
            flaws.append(("lone_surrogate", "encoded as three bytes"))
        return None, tuple(flaws)
    odd: list[str] = []

    def constant(name: str) -> float:
        odd.append(name)
        return float(name)

    try:
        decoder = json.JSONDecoder(parse_constant=constant, parse_int=_short_int)
        record, end = decoder.raw_decode(text.strip(" \t\r\n"))
    except RecursionError:
        return None, (("invalid_json", "nested too deeply"),)
    except json.JSONDecodeError as error:
        return None, _syntax_flaws(text, error)
    if rest := text.strip(" \t\r\n")[end:].strip():
        code = "two_objects_on_a_line" if rest.startswith("{") else "invalid_json"
        return None, tuple(dict.fromkeys((("invalid_json", "more after the object"), (code, "more after the object"))))
    if type(record) is not dict:
        return None, (("not_an_object", f"it is {_type_name(record)}"),)
    return record, (("nonstandard_json", ", ".join(odd)),) if odd else ()


def _short_int(text: str) -> int | str:
    """Python refuses to turn thousands of digits into a number."""
    return int(text) if len(text) < 400 else text


def _syntax_flaws(text: str, error: json.JSONDecodeError) -> tuple[Flaw, ...]:
    if "\0" in text:
        return (("nul_raw", f"at character {text.index(chr(0))}"), ("invalid_json", error.msg))
    at_end = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    if at_end and text.lstrip().startswith("{") and not text.rstrip().endswith("}"):
        return (("truncated_json", error.msg),)
    hint = "single quotes: this is Python's notation" if re.match(r"\s*\{\s*'", text) else error.msg
    return (("invalid_json", f"{hint}, at character {error.pos}"),)


def array_elements(stream: ByteStream, cap: int) -> Iterator[tuple[int, bytes, bool]]:
    """(line it starts on, raw element, whole) of a JSON file that holds one array, in memory of one element.

    An element longer than `cap` bytes, or one that never ends, comes as its first `cap + 1` bytes and is the last:
    where the next one starts is then unknown.
    """
    buffer, line, scanned, depth, started = b"", 1, 0, 0, False
    while True:
        chunk = stream.read(CHUNK)
        buffer += chunk
        start = 0
        if not started:
            start = len(buffer) - len(buffer.lstrip(_BOM + _SPACE)) + 1
            started, scanned = True, start
            line += buffer[:start].count(b"\n")
        # The last byte may be half of an escape or of a string: it waits for the next chunk.
        for token in _STRUCTURE.finditer(buffer, scanned):
            mark = token.group()
            if mark == b'"':
                break  # a string that goes on in the next chunk
            scanned = token.end()
            if depth == 0 and mark in (b",", b"]"):
                element = buffer[start : token.start()]
                if element.strip(_SPACE):
                    lead = len(element) - len(element.lstrip(_SPACE))
                    yield line + element[:lead].count(b"\n"), element.strip(_SPACE)[: cap + 1], True
                line += buffer[start : token.end()].count(b"\n")
                start = token.end()
                if mark == b"]":
                    return
            elif mark in (b"{", b"["):
                depth += 1
            elif mark in (b"}", b"]"):
                depth -= 1
        buffer, scanned = buffer[start:], scanned - start
        if len(buffer) > cap or not chunk:
            if rest := buffer.strip(_SPACE):
                lead = len(buffer) - len(buffer.lstrip(_SPACE))
                yield line + buffer[:lead].count(b"\n"), rest[: cap + 1], False
            return


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
