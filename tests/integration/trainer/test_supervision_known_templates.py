"""What is learnt is what is served, for the templates of known models that TRL carries: Cohere to SmolLM, with tools and thoughts."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from schemas.lines import Message, Row
from services.language_models.chat_format.chat import Chat, ChatFault
from services.language_models.chat_format.written import contains
from tests.supervised import call, encoded, learnt, row, tool, turn
from tests.tiny_tokenizers import bytes_tokenizer

_TRL = importlib.util.find_spec("trl")
FOLDER = Path(str(_TRL and _TRL.origin)).parent / "chat_templates"
IMAGES = ("idefics3", "llava_next", "smolvlm")
"""Templates that write nothing but content in parts."""
NAMES = [
    one.stem for one in sorted(FOLDER.glob("*.jinja")) if not one.stem.endswith("_training") and one.stem not in IMAGES
]
ENDS = {
    "cohere": ["<|END_OF_TURN_TOKEN|>"], "cohere2": ["<|END_OF_TURN_TOKEN|>"], "gptoss": ["<|return|>", "<|call|>"],
    "gemma4": ["<turn|>", "<|tool_response>"], "diffusion": ["<turn|>", "<|tool_response>"], "gemma": ["<end_of_turn>"],
    "gemma3": ["<end_of_turn>"], "glm4moe": ["<|user|>", "<|observation|>"], "llama3": ["<|eot_id|>"], "muse": ["<|eot|>"],
    "phi3": ["<|end|>"], "deepseek": ["<\uff5cend\u2581of\u2581sentence\uff5c>"],
    "deepseekv3": ["<\uff5cend\u2581of\u2581sentence\uff5c>"],
}  # fmt: skip
"""The tokens that end a generation by family; the first is the tokenizer's. Of the others it is ChatML's."""
CALL = turn("assistant: ", tool_calls=({**call("stock", item="lamp"), "id": "abcdef123"},))
RESULT = turn("tool: 4 left", name="stock", tool_call_id="abcdef123")
ROWS = {
    "several answers": row("user: Q1", "assistant: A1.", "user: Q2", "assistant: A2."),
    "a thought": row("system: Be kind.", "user: Q1", "assistant: <think>\nhm\n</think>\n\nA1."),
    "a thought in its field": row(
        "user: Q1", turn("assistant: A1.", reasoning="hm"), "user: Q2", turn("assistant: A2.", reasoning="so")
    ),
    "a tool call": row("user: Q1", CALL, RESULT, "assistant: Four.", "user: Q2", CALL, tools=[tool("stock")]),
    "a thought before a call": row(
        "user: Q1", turn("assistant: ", reasoning="hm", tool_calls=CALL.tool_calls), tools=[tool("stock")]
    ),
}


def chat_with(home: Path, name: str) -> Chat:
    """Return the chat format with a template of TRL's and the control tokens that it writes."""
    template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    ends = ENDS.get(name.split("_")[0], ["<|im_end|>"])
    written = re.findall(r"<\|[\w/]+\|?>|<\w+\|>|<\uff5c[^\uff5c>]+\uff5c>|<(?:start|end)_of_\w+>", template)
    control = list(dict.fromkeys(["<|pad|>", *ends, *written]))
    folder = bytes_tokenizer(home, template, control, ends[0])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [control.index(end) for end in ends]}))
    return Chat(folder)


@pytest.mark.parametrize("name", NAMES)
def test_each_learnt_answer_is_whole_behind_its_prompt_and_ended_or_the_row_is_refused(tmp_path: Path, name: str) -> None:
    chat = chat_with(tmp_path, name)
    for one in ROWS.values():
        try:
            tokens = encoded(chat, one)
        except ChatFault:
            continue
        said, answers = learnt(chat, tokens), [turn for turn in [*one.messages, one.answer] if turn.role == "assistant"]
        assert len(said) + tokens.unlearnt == len(answers)
        assert contains(said[-1], answers[-1])
        assert all(chat.tokenizer.encode(text, add_special_tokens=False)[-1] in chat.stop_ids for text in said)
        begins = [place for place, is_learnt in enumerate(tokens.learnt) if is_learnt and not tokens.learnt[place - 1]]
        assert {tuple(tokens.ids[:begin]) for begin in begins} <= served_prompts(chat, one)


def served_prompts(chat: Chat, one: Row) -> set[tuple[int, ...]]:
    """Return the tokens of the prompt of each answer, as transformers itself renders them."""
    turns, prompts = [*one.messages, one.answer], set()
    for place, answer in enumerate(turns):
        if answer.role == "assistant":
            rendered = chat.tokenizer.apply_chat_template(
                [written(turn) for turn in turns[:place]], tools=list(one.tools) or None, tokenize=False,
                add_generation_prompt=True,
            )  # fmt: skip
            prompts.add(tuple(chat.tokenizer(rendered, add_special_tokens=False)["input_ids"]))
    return prompts


def written(turn: Message) -> dict[str, object]:
    """Return a turn in OpenAI's form."""
    fields = {
        "tool_calls": list(turn.tool_calls),
        "reasoning_content": turn.reasoning,
        "name": turn.name,
        "tool_call_id": turn.tool_call_id,
    }
    return {"role": turn.role, "content": turn.content, **{name: value for name, value in fields.items() if value}}


@pytest.mark.parametrize(
    ("name", "row_name"), [("qwen3", "several answers"), ("gptoss", "a thought before a call"), ("llama3_1", "a tool call")]
)
def test_the_rows_are_learnt_where_the_model_knows_them(tmp_path: Path, name: str, row_name: str) -> None:
    chat = chat_with(tmp_path, name)
    assert contains(learnt(chat, encoded(chat, ROWS[row_name]))[-1], ROWS[row_name].answer)
