"""JSON is read quickly where it is harmless, and says the same as where it is read with care."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.json_text import NoJson, parse

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES, st.booleans())
@example(value=[2.2250738585072011e-308, 5e-324, 0.1, 1e16, -0.0, 10**299], ascii_only=True)
def test_what_is_read_is_what_the_standard_library_reads(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    for doubled in (False, True):
        found = parse(text, doubled=doubled).value
        assert repr(found) == repr(json.loads(text.decode("utf-8", "surrogatepass")))


@pytest.mark.parametrize("number", ["1e999", "-1E400", "1.5e+309", "9" * 400 + ".5", "9" * 400])
def test_a_number_beyond_a_double_is_never_plain(number: str) -> None:
    found = parse(b'{"a": ' + number.encode() + b"}")
    assert not found.plain
    assert isinstance(found.value, dict)
    assert math.isinf(found.value["a"])


@pytest.mark.parametrize("text", ["NaN", "[1,]", "01", '"\x01"', "1 2", "", "{'a': 1}", "\x0b1", "-", '{"a" 1}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(NoJson, match="no JSON"):
        parse(text.encode())
