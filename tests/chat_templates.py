"""Chat templates in the shapes of known families, for tokenizers whose control tokens are ChatML's."""

from tests.tiny_tokenizers import CHAT_TEMPLATE

CHATML = CHAT_TEMPLATE
WITHOUT_PROMPT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
"""It ignores add_generation_prompt (unslothai/unsloth#1404)."""
ALWAYS_OPEN = "{% for m in messages %}<H>{{ m.role }}</H>{{ m.content | trim }}<|im_end|>{% endfor %}<H>assistant</H>"
"""It opens the next answer whether asked to or not (unslothai/unsloth#1312, Llama3.1-8B-Chinese-Chat)."""
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""The prompt ends without a header, and a space precedes the answer."""
TRAILING_SPACE = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
"""The generation prompt ends in a space (huggingface/trl#2054)."""
LAST_SYSTEM = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {% if loop.index0 >= messages | length - 2 %}{{ system }} {% endif %}{{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
"""The system prompt stands in the last user turn, as in Mistral's template: earlier turns change when a turn is added."""
WITHOUT_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""It writes no token that ends an answer."""
THREE_ROLES = (
    "{% for m in messages %}{% if m.role in ('user', 'system', 'assistant') %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""It writes nothing for other roles, nor tools and tool calls (hiyouga/LLaMA-Factory#2529)."""
TOOLS = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool.function | tojson }}{% endfor %}</tools>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""It writes tools, tool calls and what tools say."""
CALL_OR_TEXT = TOOLS.replace("{{ m.content or '' }}", "{% if not m.tool_calls %}{{ m.content }}{% endif %}")
"""It leaves out what is said beside a tool call (Llama 3.1)."""
NAME_ONLY = TOOLS.replace("call.function | tojson", "call.function.name")
"""It leaves out the arguments of a tool call."""
JSON_RESULTS = TOOLS.replace(
    "{{ m.content or '' }}", "{% if m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}"
)
"""It writes what a tool says as a JSON string (Llama 3.1)."""
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}<U>{{ m.content }}{% else %}<A>{{ m.content.split('</think>')[-1] }}<|im_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<A><think>\n{% endif %}"
)
"""It opens a thought in the generation prompt, and writes none (DeepSeek-R1-Distill, huggingface/trl#6766)."""
R1_UNOPENED = R1.replace("<A><think>\n", "<A>")
"""It opens no thought, and writes none: the first revision of the same template."""
QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\\n') %}{% set thought = m.reasoning_content or '' %}"
    "{% if '</think>' in m.content %}{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}{% endif %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ said }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The last answer has a thought, if an empty one; the history has none (Qwen3, modelscope/ms-swift#4939)."""
QWEN35 = (
    QWEN3.replace("'</think>' in m.content", "'<think>' in m.content")
    .replace(
        "m.content.split('</think>')[-1].lstrip('\\n')",
        "m.content.split('</think>')[-1].lstrip('\\n') if '<think>' in m.content else m.content",
    )
    .replace(
        "{% if add_generation_prompt %}<|im_start|>assistant\n",
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n",
    )
)
"""It opens a thought in the generation prompt, and reads a thought only with both tags (huggingface/trl#6361)."""
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') }}\n" + CHATML
"""It writes today's date (Llama 3.2, Granite)."""
