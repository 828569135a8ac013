"""JSON Patch, applied by a library that isn't ours."""

import json
from copy import deepcopy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.inject.patch import diff

NAMED = st.builds(
    lambda name, more: {"name": name} | more,
    st.sampled_from("abcd"),
    st.dictionaries(st.text(max_size=2), st.integers()),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("a/~0", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(NAMED, max_size=4)
        | st.dictionaries(st.text("a/~0", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("ab", max_size=2), VALUES), st.dictionaries(st.text("ab", max_size=2), VALUES))
def test_operations_make_one_document_into_the_other(before: Any, after: Any) -> None:
    operations = json.loads(json.dumps(list(diff(before, after))))

    made = jsonpatch.apply_patch(deepcopy(before), operations)

    assert json.dumps(made, sort_keys=True) == json.dumps(after, sort_keys=True)


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        pytest.param({"a": [1]}, {"a": [1]}, [], id="nothing for what is the same"),
        pytest.param(
            {"l": [{"name": "x"}]},
            {"l": [{"name": "new"}, {"name": "x", "k": 1}]},
            [
                {"op": "add", "path": "/l/0", "value": {"name": "new"}},
                {"op": "add", "path": "/l/1/k", "value": 1},
            ],
            id="a new item is added, and the other one changed where it is now",
        ),
        pytest.param(
            {"l": [{"name": "x"}, {"name": "y"}]},
            {"l": [{"name": "y"}, {"name": "x"}]},
            [{"op": "replace", "path": "/l", "value": [{"name": "y"}, {"name": "x"}]}],
            id="another order replaces the list",
        ),
        pytest.param(
            {"a/b": {"~": 1}}, {"a/b": {}}, [{"op": "remove", "path": "/a~1b/~0"}], id="slashes and tildes are escaped"
        ),
        pytest.param({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True}], id="1 is not true"),
    ],
)
def test_diff(before: Any, after: Any, operations: list[Any]) -> None:
    assert list(diff(before, after)) == operations
