"""JSON is read quickly where it is harmless, and says the same as where it is read with care."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.json_text import DEPTH_LIMIT, NoJson, parse, parse_plain

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES, st.booleans())
@example(value=[2.2250738585072011e-308, 5e-324, 0.1, 1e16, -0.0, 10**299], ascii_only=True)
def test_what_is_read_is_what_the_standard_library_reads(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    for doubled in (False, True):
        found = parse(text, doubled=doubled).value
        assert repr(found) == repr(json.loads(text.decode("utf-8", "surrogatepass")))


def _written(pairs: list[tuple[str, str, str, str]]) -> str:
    return "{" + ",".join(f"{before}{json.dumps(name)}{blank}:{value}" for name, before, blank, value in pairs) + "}"


NAMES = st.sampled_from(["a", "b", 'a":', "c:", "\u0061", "é", " :"])
BLANKS = st.sampled_from(["", " ", "\n", "\t ", "\r"])
OBJECTS = st.recursive(
    st.sampled_from(["1", "null", '"12:30:00"', '"a :b"', r'"\":"', "1e5", "[1e5]"]),
    lambda inner: st.lists(st.tuples(NAMES, BLANKS, BLANKS, inner), max_size=4).map(_written),
    max_leaves=8,
)


@given(OBJECTS)
@example('{"a":1,"a":2}')
@example('{"a" :1,"b":"x","a":2}')
@example('{"a":"\\":","a":2}')
def test_a_name_that_stands_twice_is_noted_however_it_is_written(text: str) -> None:
    twice = set[str]()

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        twice.update(name for name in names if names.count(name) > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=look)
    assert set(parse(text.encode(), doubled=True).doubled) == twice


@pytest.mark.parametrize("text", ["12e3", "1e0", "-1E-2", "[1,2e5]", '{"a":\n1.5e+3}', "[[0e1]]"])
def test_an_exponent_is_seen_wherever_it_stands_and_an_id_is_none(text: str) -> None:
    assert repr(parse(text.encode()).value) == repr(json.loads(text))
    assert parse(b'{"job_id": "0e4-1E5", "x": ' + text.encode() + b"}").value == {
        "job_id": "0e4-1E5",
        "x": json.loads(text),
    }


@given(st.text("0123456789abcdef-", min_size=1, max_size=80))
@example("3e4")
@example("latency-5e-7")
def test_an_id_in_hexadecimal_makes_no_text_odd(name: str) -> None:
    assert parse_plain(f'{{"id":"{name}","in":["x{name}",7]}}'.encode()) is not None


@pytest.mark.parametrize("number", ["1e5", "-0.1E-2", "0" + "." + "1" * 299 + "e9"])
@pytest.mark.parametrize("text", ["{}", "[{}]", '{{"a":{}}}', '{{"a": 1,\n"b":\t{}}}', '["3e4",{}]'])
def test_a_number_with_an_exponent_is_read_with_care(text: str, number: str) -> None:
    assert parse_plain(text.format(number).encode()) is None


@pytest.mark.parametrize("number", ["1e999", "-1E400", "0.1e310", "-0.00001E+320", "1.5e+309", "9" * 400 + ".5", "9" * 400])
def test_a_number_beyond_a_double_is_never_plain(number: str) -> None:
    found = parse(b'{"a": ' + number.encode() + b"}")
    assert not found.plain
    assert isinstance(found.value, dict)
    assert math.isinf(found.value["a"])


@pytest.mark.parametrize("text", ["NaN", "[1,]", "01", '"\x01"', "1 2", "", "{'a': 1}", "\x0b1", "-", '{"a" 1}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(NoJson, match="not JSON"):
        parse(text.encode())


@pytest.mark.parametrize(("levels", "plain"), [(1, True), (DEPTH_LIMIT, True), (DEPTH_LIMIT + 1, False), (190, False)])
@pytest.mark.parametrize("beside", [0, 200])
def test_many_objects_are_read_quickly_and_deep_ones_with_care(levels: int, plain: bool, beside: int) -> None:
    text = '{"a":' * (levels - 1) + "[" + ",".join(["{}"] * beside) + "]" + "}" * (levels - 1)
    is_plain = plain and not (beside and levels == DEPTH_LIMIT)  # the objects beside are a level deeper
    found = parse_plain(text.encode())
    assert (found is not None) == is_plain
    assert parse(text.encode()).value == json.loads(text)
