"""YAML text as plain values, each with its line and column. Only what a policy needs; what's dangerous is refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError

from sidecar.policy.problems import Path, PolicyError, Position, Problem

type Value = bool | int | float | str | list[Value] | dict[str, Value] | None

MAX_DEPTH = 16
MAX_PROBLEMS = 100

# The core schema of YAML 1.2.2, section 10.3.2: `no`, `on` and `0755` aren't what they were in YAML 1.1.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_BASED = re.compile(r"0(?:o[0-7]{1,18}|x[0-9a-fA-F]{1,15})\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


@dataclass(slots=True)
class Tree:
    """A document's value; where each part of it stands; and what's wrong with it so far."""

    value: Value = None
    values: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def at(self, path: Path) -> Position:
        """Where the value at *path* stands, or else the closest thing around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Position(1, 1))

    def at_key(self, path: Path) -> Position:
        """Where the key of the value at *path* stands; an item of a list has none, and stands for itself."""
        return self.keys.get(path) or self.at(path)

    def complain(self, position: Position, path: Path, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(position, path, message))


def read_tree(text: str, source: str) -> Tree:
    """
    Read one YAML 1.2 document.

    Duplicate keys, anchors, aliases, tags and keys that aren't text are put among the tree's problems.

    Raises:
        PolicyError: It isn't YAML, holds more than one document, or is nested more than 16 deep.
    """
    tree = Tree()
    try:
        reader = _Reader(tree, YAML(typ="safe", pure=True).parse(text))
        tree.value = reader.document()
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        # Some of the parser's messages go on with a picture of the place, which is told by line and column already.
        what = str(e.problem or e.context or "syntax error").partition("\n")[0].partition("   in ")[0].strip()
        tree.complain(position, (), f"not valid YAML: {what}; quote texts that begin with one of * & ! % @ ` [ {{")
    except (YAMLError, YAMLStreamError) as e:
        tree.complain(Position(1, 1), (), f"not valid YAML: {str(e).partition(chr(10))[0].strip()}")
    except _Refused as e:
        tree.complain(e.position, (), str(e))
    except (ValueError, RecursionError, AttributeError, IndexError, TypeError, KeyError, AssertionError) as e:
        # The parser's own slips on malformed input (a huge escape, a broken directive) are the text's fault as well.
        tree.complain(Position(1, 1), (), f"not valid YAML: {type(e).__name__} while reading it")
    else:
        return tree
    raise PolicyError(source, tuple(tree.problems))


class _Refused(Exception):
    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position


def _position(event: Any) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


class _Reader:
    """Folds the parser's events: no node graph is built, so there is nothing for an alias to multiply."""

    def __init__(self, tree: Tree, events: Iterator[Any]) -> None:
        self._tree = tree
        self._events = events

    def document(self) -> Value:
        value: Value = None
        documents = 0
        for event in self._events:
            if isinstance(event, ev.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(_position(event), "a second document begins here; a policy is one document")
            elif not isinstance(event, ev.StreamStartEvent | ev.StreamEndEvent | ev.DocumentEndEvent):
                value = self._value(event, ())
        return value

    def _value(self, event: Any, path: Path) -> Value:
        position = _position(event)
        self._tree.values[path] = position
        if len(path) > MAX_DEPTH:
            raise _Refused(position, f"nested more than {MAX_DEPTH} deep; a policy needs no such depth")
        if isinstance(event, ev.AliasEvent):
            text = f"*{event.anchor}"
            self._tree.complain(position, path, f"{text} reads as a YAML alias; put a pattern in quotes: '{text}'")
            return text
        if event.anchor is not None:
            self._tree.complain(position, path, f"the anchor &{event.anchor} isn't supported; write the value out")
        if event.tag is not None:
            self._tree.complain(position, path, f"the tag {event.tag} isn't supported; leave it out")
        if isinstance(event, ev.ScalarEvent):
            return _plain(event.value) if event.style is None else str(event.value)
        if isinstance(event, ev.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _list(self, path: Path) -> Value:
        items: list[Value] = []
        while not isinstance(event := next(self._events), ev.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> Value:
        mapping: dict[str, Value] = {}
        while not isinstance(event := next(self._events), ev.MappingEndEvent):
            position = _position(event)
            if not isinstance(event, ev.ScalarEvent):
                raise _Refused(position, "a key must be a text, such as 'rules:'; quote it if it begins with * [ or {")
            key = str(event.value)
            where = (*path, key)
            if event.anchor is not None or event.tag is not None:
                self._tree.complain(
                    position, where, "a key with an anchor or a tag isn't supported; write the key alone"
                )
            if key in mapping:
                first = self._tree.keys[where].line
                self._tree.complain(position, where, f"given twice, first on line {first}; keep one of the two")
                self._value(next(self._events), (*path, f"{key}\0"))
                continue
            self._tree.keys[where] = position
            mapping[key] = self._value(next(self._events), where)
        return mapping


def _plain(text: str) -> Value:
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text)
    if _BASED.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    return text
