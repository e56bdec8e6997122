#!/usr/bin/env python3
"""Writes crates/tokenizer/tests/golden/templates.json: conversations through chat templates.

    pip install jinja2==3.1.*

Jinja2 is set up as transformers sets it up for chat templates. The templates are written for this
file, in the styles of well-known models, and use between them what real templates use.
"""

import json
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = Path(__file__).resolve().parents[2] / "crates/tokenizer/tests/golden"
NOW = datetime(2024, 2, 5, 9, 7, 3)
DATES = [
    datetime(2024, 2, 29, 0, 0, 0), datetime(2023, 12, 31, 12, 30, 59), datetime(2000, 3, 1, 13, 5, 9), datetime(1999, 1, 3, 23, 59, 1), datetime(2100, 10, 10, 11, 1, 1),
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}


class Generation(jinja2.ext.Extension):
    """The tags around what the model wrote."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _write(self, context, caller):
        return caller()


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    jinja = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    jinja.filters["tojson"] = tojson
    jinja.globals["raise_exception"] = refuse
    jinja.globals["strftime_now"] = NOW.strftime
    return jinja


TEMPLATES = {
    "chatml": """{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}""",
    "inst": """{%- if messages and messages[0]['role'] == 'system' %}
    {%- set turns = messages[1:] %}
    {%- set opening = '<<SYS>>\\n' ~ messages[0]['content'] ~ '\\n<</SYS>>\\n\\n' %}
{%- else %}
    {%- set turns = messages %}
    {%- set opening = '' %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant must take turns, starting with user: ' ~ turn['role']) }}
    {%- endif %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (opening if loop.first else '') + turn['content'].strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + turn['content'] | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "inst_tight": """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% elif m.role == 'system' and loop.first %}{{ m.content ~ '\\n\\n' }}{% else %}{{ raise_exception('Only a first system message, user and assistant are known.') }}{% endif %}{% endfor %}""",
    "headers": """{{- bos_token }}
{%- if tools is not none %}
    {{- raise_exception('no tools here') }}
{%- endif %}
{%- set date = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' + date + '\\n\\n' }}
{%- if messages[0].role == 'system' %}
    {{- messages[0].content | trim }}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
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
    "turns": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    "json": """{% for message in messages %}
{{ message | tojson }}
{{ message | tojson(indent=2) }}
{{ message.content | tojson(ensure_ascii=True) }} {{ {'b': [1, 2.5, 1e20, 1e-7, -0.0], 'a': {}, 'c': none, 'd': true, 3: [[]]} | tojson(separators=(',', ':')) }}
{% endfor %}
{{ {'b': 1, 'a': [], 'é': ['"', "\\\\"]} | tojson(sort_keys=True, indent=4) }} {{ messages | tojson }}
{{ strftime_now('%Y-%m-%d %H:%M:%S %A %B %j %I %p %y %e %-d %% %a %b %F %T %D') }}""",
    "generation": """{%- for message in messages %}
  {% if message.role == 'assistant' %}
    {%- generation -%}
    {{ message.content }}{{ eos_token }}
    {% endgeneration %}
  {% else %}
    [{{ message.role }}] {{ message.content }}
    {% generation %}
    kept
    {%- endgeneration -%}
    after
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}generation:{% endif %}
""",
    "namespace": """{% set ns = namespace(system='', count=0, found=false) %}
{% for message in messages %}
    {% if message['role'] == 'system' %}
        {% set ns.system = message['content'] %}
        {% continue %}
    {% endif %}
    {% set ns.count = ns.count + 1 %}
    {% if ns.count > 4 %}
        {% set ns.found = true %}
        {% break %}
    {% endif %}
{{ ns.count }}/{{ loop.length }}{{ ' last' if loop.last }}: {{ message.content.split('\\n')[0] }}
{% else %}
nobody
{% endfor %}
{{ ns.system | default('none', true) }} {{ ns.found }} {{ ns.count }} {{ none }} {{ true }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 5 }}""",
    "macros": """{% macro turn(role, content, end='\\n') -%}
<{{ role | upper }}>{{ content | replace('"', "'") }}</{{ role }}>{{ end }}
{%- endmacro %}
{# a comment with {% generation %} #}
{%- for message in messages -%}
{{ turn(message.role, message['content'] | trim) }}
{{- turn(role=message.role, content=message.content[:3], end='') if message.content | length > 3 }}
{% endfor %}
{% raw %}{{ raw }} {% generation %}{% endraw %}
{% set users = messages | selectattr('role', 'equalto', 'user') | list %}
{{ users | length }} {{ users | map(attribute='content') | join('|') }} {{ messages | map(attribute='role') | unique | list }}""",
    "methods": """{% for message in messages %}
{% set c = message.content %}
{{ c.upper() }} {{ c.lstrip() }} {{ c.rstrip('.!?') }} {{ c.startswith('H') }} {{ c.endswith('?') }} {{ c.replace('a', 'b') }} {{ c.split() | join('/') }} {{ c.title() }}
{{ message.get('name', 'anonymous') }} {% for key, value in message.items() %}{{ key }}={{ value }};{% endfor %} {{ 'role' in message }} {{ message.missing is defined }} {{ message.missing }} {{ c is string }} {{ message is mapping }} {{ c[::-1] }} {{ c[-2:] }} {{ c | first }} {{ c | length }}
{% if not loop.last %}{{ loop.nextitem.role }}{% endif %}{% if loop.previtem is defined %}{{ loop.previtem.role }}{% endif %}
{{ '%s-%d' | format('x', 3) }} {{ ['a', "b'c", 1, none, true] }} {{ 'q' ~ 1 ~ none ~ true }} {{ (1, 2) }} {{ c | capitalize }} {{ [1, 2, 3] | sum }} {{ 'a,b' .split(',') | last }}
{% endfor %}""",
    "smollm2": None,
    "broken_syntax": "{% for message in messages %}{{ message.content }",
    "broken_tag": "{% if true %}{{ messages }}",
    "broken_call": "{{ messages[0].content.no_such_method() }}",
    "broken_attribute": "{{ messages[0].missing.deeper }}",
    "broken_sum": "{{ messages[0].content + 1 }}",
    "broken_json": "{{ missing | tojson }}",
    "refuses_all": "{% if messages %}{{ raise_exception('nothing \"pleases\" me: ' + messages[0].role) }}{% endif %}",
}

CONVERSATIONS = [
    [("user", "Hello!")],
    [("system", "You are a potter."), ("user", "What is a kiln?")],
    [("user", "Hi"), ("assistant", "Hello. How can I help?"), ("user", "Tell me a joke")],
    [("system", "Be brief."), ("user", "One?"), ("assistant", "One."), ("user", "Two?"), ("assistant", "Two.")],
    [("user", "")],
    [("system", ""), ("user", "  spaces around  "), ("assistant", "\n\nlines\n\n"), ("user", "\ttab")],
    [("user", "quotes \"double\" and 'single' and `back` and \\slash\\ <b>&amp;</b>")],
    [("system", "Tu es un potier."), ("user", "Où est le four ? 窯はどこ？ Где печь? 👩‍🎨🏺"), ("assistant", "Là-bas. あそこ。")],
    [("assistant", "I begin."), ("user", "Do you?"), ("assistant", "Yes.")],
    [("user", "def f(x):\n    return {'a': [x, 1]}  # {{ not jinja }} {% nor this %}"), ("assistant", "[INST] </s> <|im_end|>"), ("tool", "42"), ("user", "Thanks. \u2028\x01\x7f")],
]


def kind(error):
    if type(error) is jinja2.exceptions.TemplateError:
        return "refused"
    return "syntax" if isinstance(error, jinja2.exceptions.TemplateSyntaxError) else "failed"


def main():
    smollm2 = json.loads((OUT / "smollm2.json").read_text(encoding="utf-8"))
    TEMPLATES["smollm2"] = smollm2["chat_template"]
    conversations = [[{"role": role, "content": content} for role, content in turns] for turns in CONVERSATIONS]
    results = {}
    for name, text in TEMPLATES.items():
        rows = []
        for messages in conversations:
            for prompt in (False, True):
                try:
                    template = environment().from_string(text)
                    rows.append({"text": template.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **SPECIAL)})
                except Exception as error:
                    row = {"error": kind(error)}
                    if row["error"] == "refused":
                        row["message"] = str(error)
                    rows.append(row)
        results[name] = rows
    directives = "%Y %y %m %-m %d %-d %e %H %-H %I %-I %k %l %M %S %j %p %B %b %h %A %a %w %u %F %T %R %D %x %X %c %% é"
    dates = []
    for date in DATES:
        dates.append([list(date.timetuple()[:6]), date.strftime(directives)])
    now = {"year": NOW.year, "month": NOW.month, "day": NOW.day, "hour": NOW.hour, "minute": NOW.minute, "second": NOW.second}
    golden = {"now": now, "directives": directives, "dates": dates, "special": SPECIAL, "templates": TEMPLATES, "conversations": conversations, "results": results}
    (OUT / "templates.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    for name, rows in results.items():
        errors = [row["error"] for row in rows if "error" in row]
        print(f"{name:18} {len(rows) - len(errors)} texts, errors {sorted(set(errors))}")


main()
