# SPDX-License-Identifier: Apache-2.0
"""Makes tests/text/golden/chat/*.jsonl: what transformers' apply_chat_template gives for templates and chats.

    python tests/reference/make_chat_goldens.py             (transformers 5.23, jinja2 3.1)
    python tests/reference/make_chat_goldens.py --check     exit 1 if the files say something else

templates.jsonl   {"name", "source"}: templates with the constructs of LLaMA 2 and 3, Mistral, Qwen 2.5 and 3, Gemma,
                  Phi 3, Zephyr, ChatML; written for this test
chats.jsonl       {"template", "messages", "add_generation_prompt", "text"}, or "refused": true
constructs.jsonl  {"source", "text"}: one construct of Jinja each, or "refused": true
real.jsonl        as chats.jsonl, of the templates of real models: files of FSLLM_TEST_DATA (default ../shared/data), and
                  the quickstart's model in .deps/models; what is not there is left out
"""
import importlib.util
import json
import os
import pathlib
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/text/golden/chat"
DATA = pathlib.Path(os.environ.get("FSLLM_TEST_DATA", ROOT.parent / "shared/data"))
MISTRAL = "tokenizers/mistral-v3/tokenizer_config.json"
SMOLLM2 = ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"

TEMPLATES = {
    "chatml": """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "system_by_default": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are of help.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3": """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    "llama3_with_date": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("user and assistant take turns") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
    "gemma3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
""",
    "phi3": """{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "qwen25": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3": """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<|User|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + content + eos_token}}{%- endif %}{%- endfor %}{% if add_generation_prompt %}{{'<|Assistant|>'}}{% endif %}""",
    "macro_and_generation": """{%- macro turn(role, content, end='<|end|>') -%}
<|{{ role }}|>{{ content }}{{ end }}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}{{ turn(message.role, message.content, end=eos_token) }}{%- endgeneration -%}
  {%- else -%}
    {{ turn(message.role, message.content) }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}
""",
}

USER, OTHER = {"role": "user", "content": "Where is \"Ürümqi\"?\n"}, {"role": "user", "content": "  And 你好 🙂?"}
ANSWER, MORE = {"role": "assistant", "content": " In China.  "}, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHello."}
SYSTEM = {"role": "system", "content": "Be brief."}
CHATS = [[USER], [SYSTEM, USER], [USER, ANSWER], [SYSTEM, USER, ANSWER], [USER, ANSWER, OTHER],
         [USER, ANSWER, OTHER, MORE], [SYSTEM, USER, MORE, OTHER, ANSWER], [USER, USER], [ANSWER]]

CONSTRUCTS = r"""
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ 1e20 ~ 0.00001 }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }}
{{ [1, 'a', none, {'b': [true]}] }} {{ (1, 2)[0] }} {{ {'a': 1}.a }} {{ {'a': 1}['a'] }}
{{ 'abc'[1:] }} {{ 'abc'[:-1] }} {{ 'abc'[::-1] }} {{ [1, 2, 3, 4][1:3] }} {{ [1, 2, 3][::-1] }} {{ 'héé'[1:2] }} {{ [1,2,3,4,5][4:0:-2] }}
{{ 'x' in 'axb' }} {{ 'x' not in ['a'] }} {{ 'k' in {'k': 1} }} {{ not 1 == 2 }} {{ 1 < 2 and 3 >= 3 or false }}
{{ 'a' if false else 'b' }}{{ 'c' if false }}{{ missing }}{{ missing | default('d') }}{{ '' | default('e', true) }}{{ none | default('f') }}
{{ missing is defined }} {{ 1 is number }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ none is none }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ true is boolean }} {{ 1.5 is float }} {{ 1 is integer }} {{ true is true }} {{ 1 is true }} {{ 'a' is sequence }}
{{ 'a' is not none }} {{ 1 is eq 1 }} {{ 2 is in [1, 2] }} {{ 'x' is equalto('x') }}
{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.length }},{% else %}none{% endfor %}
{% for i in [] %}x{% else %}none{% endfor %}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}
{% for i in range(10) if i is even %}{% if i == 6 %}{% break %}{% endif %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{{ loop.index }}{% endfor %}
{% for i in [1, 2, 3] %}{{ loop.previtem if loop.previtem is defined }}<{{ i }}>{{ loop.nextitem if not loop.last }} {% endfor %}
{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}
{% set ns = namespace(n=0, t='a') %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.t }}
{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set block %}in {{ a }} block{% endset %}[{{ block }}]
{% macro m(a, b=2) %}({{ a }},{{ b }}){% endmacro %}{{ m(1) }}{{ m(1, b=3) }}{{ m(a=4) }}
{{ '  a b  ' | trim }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ '\u00a0a\n'.strip() }}|
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b'.split(' ')[-1] }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a\nb\r\nc\n'.splitlines() }}
{{ 'Hello'.startswith('He') }} {{ 'Hello'.endswith(('x', 'lo')) }} {{ 'hello world'.title() }} {{ 'ÀB c'.lower() }} {{ 'straße à'.upper() }} {{ 'hELLO wORLD'.capitalize() }} {{ "they're x1y" | title }}
{{ 'aXbXc'.replace('X', '-') }} {{ 'aXbXc'.replace('X', '-', 1) }} {{ 'aXb' | replace('X', '') }} {{ 'abcb'.find('b') }} {{ 'abcb'.find('z') }} {{ 'abab'.count('ab') }}
{{ ', '.join(['a', 'b']) }} {{ [1, 'b'] | join('-') }} {{ [{'n': 'a'}, {'n': 'b'}] | map(attribute='n') | join('+') }} {{ ['a', 'B'] | map('upper') | list }}
{{ [{'r': 'u', 'i': 1}, {'r': 'a', 'i': 2}] | selectattr('r', 'equalto', 'u') | map(attribute='i') | list }} {{ [{'r': 'u'}, {'x': 1}] | rejectattr('r', 'defined') | list | length }} {{ [0, 1, 2] | select | list }} {{ [1, 2, 3] | reject('odd') | list }}
{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ ['b', 'A'] | sort }} {{ [1, 2, 1] | unique | list }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2] | first }}{{ [1, 2] | last }} {% for k, v in {'b': 1, 'A': 2} | dictsort %}{{ k }}{{ v }}{% endfor %} {% for k, v in {'b': 1} | items %}{{ k }}{{ v }}{% endfor %}
{{ {'a': [1, 2.5, none, true, "q\"\n\u00e9/<'&>"], 'b': {}} | tojson }} {{ [] | tojson }} {{ 'é' | tojson }}
{{ {'a': [1, {'b': 2}], 'c': {}} | tojson(indent=2) }}
{{ 'abc' | length }} {{ 'é你' | length }} {{ [1] | count }} {{ {'a': 1} | length }}
{{ '3' | int + 1 }} {{ 'x' | int }} {{ '2.5' | float }} {{ -3 | abs }} {{ 3.7 | int }} {{ 5 | string + 'x' }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1, 'b': 2}.keys() | list }} {{ {'a': 1}.values() | list }}
{{ "it's" }} {{ ["it's", 'say "x"', '\\'] }} {{ 'tab\there' }} {{ 'adj' 'acent' }} {{ '\x41\u00e9' }}
{# a comment #}x{#- y -#}  z
  {% if true %}
    indented
  {% endif %}
end
  {%- if true -%}
    tight
  {%- endif -%}
end
a {%+ if true %} b {% endif +%}
c
{% raw %}{{ not }} {% this %}{% endraw %}
{% filter upper %}abc {{ 'd' }}{% endfilter %}
{{ 'a' * 3 }} {{ [1] + [2] }} {{ '%' }}
{%- set l = [] %}{%- set _ = l.append(1) %}{{ l }}
{{ 1 if 2 > 1 else 3 if true else 4 }} {{ (not true) or 'x' }} {{ none or 'y' }} {{ '' and 'z' }}
{{ -1 | abs }} {{ - (1) }} {{ 'a' ~ 'b' | upper }} {{ 10 - 2 - 3 }}
{{ messages[0].role }} {{ messages[-1]['content'] | trim }} {{ messages[5] is defined }} {{ messages[0].missing is defined }} {{ messages[0]['tool_calls'] is not none }}
{{ missing.attribute }}
{{ raise_exception('no') }}
{{ 1 + 'a' }}
{{ 'a' | nofilter }}
{% nostatement %}
{{ 1 / 0 }}
{{ missing() }}
{% for x in 5 %}{% endfor %}
{% if true %}
{{ 'unclosed }}
{{ dict(a=1, b='c') }} {{ range(5, 0, -2) | list }} {{ loop is defined }} {{ 'A'.isdigit() }} {{ '12'.isdigit() }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.y'.removesuffix('.y') }}
{{ true + 1 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ none == none }}
""".strip("\n").split("\n")
BLOCKS = [  # constructs of several lines
    "{% for m in messages %}\n  {% if m.role == 'user' %}\n    {{ m.content }}\n  {% endif %}\n{% endfor %}\nend\n",
    "a\n\n{%- if true %}\n\n  b\n{% endif -%}\n\n c\n\n",
    "{# one\n two #}\nx\n  {# three #}\ny {# four #}\nz",
    "x\r\n{% if true %}\r\ny\r\n{% endif %}\r\n",
    "{{ 'a' }}\n{{ 'b' -}}\n{{- 'c' }}  \n  {% set x = 1 %}  \n  {{ x }}\n",
    "{% if false %}1{% elif true %}2{% elif true %}3{% else %}4{% endif %}\n\n",
    "  {% raw -%}\n  {{ x }}\n  {%- endraw %}\n y",
]


def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")


def render(template, messages, prompt):
    try:
        return {"text": tokenizer().apply_chat_template(messages, chat_template=template, tokenize=False,
                                                        add_generation_prompt=prompt)}
    except Exception:  # the kind is the template's matter
        return {"refused": True}


def chat_rows(field, templates):
    return [{field: name, "messages": chat, "add_generation_prompt": prompt, **render(source, chat, prompt)}
            for name, source in templates.items() for chat in CHATS for prompt in (False, True)]


def real_templates():
    real = {}
    if (DATA / MISTRAL).exists():
        real[MISTRAL] = json.loads((DATA / MISTRAL).read_text())["chat_template"]
    if (ROOT / SMOLLM2).exists() and importlib.util.find_spec("gguf.gguf_reader"):  # "gguf" is a folder here, too
        from gguf import GGUFReader
        real[SMOLLM2] = GGUFReader(ROOT / SMOLLM2).get_field("tokenizer.chat_template").contents()
    return real


def files():
    made = {
        "templates.jsonl": [{"name": name, "source": source} for name, source in TEMPLATES.items()],
        "chats.jsonl": chat_rows("template", TEMPLATES),
        "constructs.jsonl": [{"source": source, **render(source, [USER, ANSWER], True)}
                             for source in CONSTRUCTS + BLOCKS],
    }
    made["real.jsonl"] = chat_rows("file", real_templates())
    return made


def differs(path, rows):
    """Of real models only those that are there can be compared."""
    known = [json.loads(line) for line in path.read_text().splitlines()]
    if path.name == "real.jsonl":
        known = [row for row in known if row["file"] in {row["file"] for row in rows}]
    return known != rows


def main():
    wrong = 0
    for name, rows in files().items():
        if "--check" not in sys.argv:
            OUT.mkdir(parents=True, exist_ok=True)
            (OUT / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        elif differs(OUT / name, rows):
            print(f"{OUT / name} is not what transformers gives now")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
