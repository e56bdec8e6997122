//! Chat templates give the text that Python's jinja2 gives, or fail in the same way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use kiln_tokenizer::{ChatTemplate, DateTime, Error, Message};
use serde_json::{Map, Value};
use support::json;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The kind of an error, in the golden file's words.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::TemplateSyntax { .. } => "syntax",
        Error::TemplateRefused { .. } => "refused",
        Error::TemplateFailed { .. } => "failed",
        other => panic!("{other}"),
    }
}

/// What was found and what was expected, in one form.
fn outcome(found: Result<String, Error>) -> String {
    match found {
        Ok(text) => format!("text: {text}"),
        Err(Error::TemplateRefused { message, .. }) => format!("refused: {message}"),
        Err(error) => format!("{}:", kind(&error)),
    }
}

fn expected(row: &Value) -> String {
    match &row["error"] {
        Value::Null => format!("text: {}", text(&row["text"])),
        kind => format!(
            "{}: {}",
            text(kind),
            row["message"].as_str().unwrap_or_default()
        )
        .trim_end()
        .to_owned(),
    }
}

#[test]
fn ten_conversations_through_each_template_equal_jinja2() {
    let golden = json("templates.json");
    let now = |part: &str| golden["now"][part].as_u64().unwrap() as u32;
    let now = DateTime {
        year: now("year") as i32,
        month: now("month"),
        day: now("day"),
        hour: now("hour"),
        minute: now("minute"),
        second: now("second"),
    };
    let conversations = golden["conversations"].as_array().unwrap();
    assert_eq!(conversations.len(), 10);
    let templates = golden["templates"].as_object().unwrap();
    assert!(templates.len() >= 15);
    let mut differ = Vec::new();
    for (name, source) in templates {
        let rows = golden["results"][name].as_array().unwrap();
        let mut rows = rows.iter();
        for (i, turns) in conversations.iter().enumerate() {
            let turns = turns.as_array().unwrap().iter();
            let messages: Vec<Message> = turns
                .map(|turn| Message::new(text(&turn["role"]), text(&turn["content"])))
                .collect();
            for prompt in [false, true] {
                let special = golden["special"].as_object().unwrap().clone();
                let found = ChatTemplate::new(name, text(source))
                    .map(|template| template.with_variables(special).at(now))
                    .and_then(|template| template.render(&messages, prompt, &Map::new()));
                let (found, expected) = (outcome(found), expected(rows.next().unwrap()));
                if found != expected {
                    differ.push(format!(
                        "{name}, conversation {i}:
{found:?}
{expected:?}"
                    ));
                }
            }
        }
        assert!(rows.next().is_none());
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn render(template: &str) -> Result<String, Error> {
    let messages = [
        Message::new("user", "hello"),
        Message::new("assistant", "hi"),
    ];
    ChatTemplate::new("test", template)?.render(&messages, false, &Map::new())
}

/// A template that repeats `step` sixty times, and shows `ns.s`, which was `a`.
fn doubled(step: &str) -> String {
    format!(
        "{{% set ns = namespace(s='a') %}}{{% for i in range(60) %}}{step}{{% endfor %}}{{{{ ns.s }}}}"
    )
}

#[test]
fn a_hostile_template_is_an_error() {
    let long = format!("{{{{ {}1 }}}}", "1 + ".repeat(100_000));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    let nested = "{% if true %}".repeat(10_000) + &"{% endif %}".repeat(10_000);
    let branches = format!(
        "{{% if false %}}{}{{% endif %}}",
        "{% elif false %}".repeat(20_000)
    );
    let pipes = format!("{{{{ 'a' {} }}}}", "| upper ".repeat(400));
    let templates = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(99999999999) %}{% endfor %}",
        "{% for a in range(0, -9223372036854775807, -9223372036854775807) %}{{ a }}{% endfor %}{{ 1 + '' }}",
        "{{ 'a' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ '%99999999999d' | format(1) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 99999999999) }}",
        "{{ '%*d' | format(99999999999, 1) }}",
        "{{ 'a\\nb' | indent(99999999999) }}",
        "{{ 'a\\nb' | indent(width=99999999999) }}",
        "{{ messages | tojson(indent=99999999999) }}",
        "{{ messages | batch(99999999999) }}",
        "{{ 'a' * 20 }}",
        "{{ 3 * [1] }}",
        "{{0~60010150*['a'] }}",
        &doubled("{% set ns.s = ns.s ~ ns.s %}"),
        &doubled("{% set ns.s = ns.s + ns.s %}"),
        &doubled("{% set ns.s = ns.s.replace('a', 'aa') %}"),
        &doubled("{% set ns.s = ns.s | replace('a', 'aa') %}"),
        &doubled("{% set ns.s = [ns.s, ns.s] | join %}"),
        &doubled("{% set ns.s = 'a'.join([ns.s, ns.s]) %}"),
        &doubled("{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = s %}"),
        &doubled("{% set ns.s = [ns.s, ns.s] %}"),
        &doubled("{% set ns.s = [ns.s, ns.s] %}").replace("{{ ns.s }}", "{{ ns.s | string }}"),
        &doubled("{% set ns.s = [ns.s, ns.s] %}").replace("{{ ns.s }}", "{{ ns.s | tojson }}"),
        "{{ 2 ** 99999999999 }}",
        "{{ 1 // 0 }}",
        "{{ 1 % 0 }}",
        "{{ [1, 2][::0] }}",
        "{{ strftime_now('%Q') }}",
        "{{ strftime_now('%') }}",
        "{% include 'chat_template' %}",
        "{% extends 'chat_template' %}",
        &long,
        &deep,
        &nested,
        &branches,
        &pipes.replace("upper", "nothing"),
    ];
    for template in templates {
        let found = render(template);
        assert!(
            matches!(
                &found,
                Err(Error::TemplateSyntax { .. } | Error::TemplateFailed { .. })
            ),
            "{}: {found:?}",
            template.chars().take(80).collect::<String>()
        );
    }
    assert_eq!(render(&pipes).unwrap(), "A");
    let branches = format!(
        "{{% if false %}}{}x{{% endif %}}",
        "{% elif false %}".repeat(256)
    );
    assert_eq!(render(&branches).unwrap(), "");
    let sum = format!("{{{{ {}1 }}}}", "1+".repeat(2000));
    assert_eq!(render(&sum).unwrap(), "2001");
}

#[test]
fn slices_are_pythons() {
    let cases = [
        ("{{ ''[::-1] }}{{ 'abc'[::-1] }}", "cba"),
        (
            "{{ 'abcdef'[1:4] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[:-2] }}",
            "bcd ef abcd",
        ),
        (
            "{{ 'abcdef'[::2] }} {{ 'abcdef'[4:1:-2] }} {{ 'abcdef'[9:-9:-1] }}",
            "ace ec fedcba",
        ),
        (
            "{{ [1, 2, 3][-9:2] }} {{ [1, 2, 3][5:] }} {{ [][::-1] }}",
            "[1, 2] [] []",
        ),
        (
            "{{ 'abc'[9223372036854775807:] }}{{ 'abc'[-9223372036854775807:1] }}",
            "a",
        ),
        (
            "{% for m in messages[::-1] %}{{ m.role }} {% endfor %}",
            "assistant user ",
        ),
        ("{{ messages[1:][0].content }}", "hi"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn a_raised_exception_carries_its_message() {
    let error = render("{{ raise_exception('only for potters') }}").unwrap_err();
    let message = error.to_string();
    assert_eq!(
        message,
        "test: the chat template refuses the conversation: only for potters"
    );
}

#[test]
fn dates_are_written_as_strftime_writes_them() {
    let golden = json("templates.json");
    let template = format!("{{{{ strftime_now('{}') }}}}", text(&golden["directives"]));
    let dates = golden["dates"].as_array().unwrap();
    assert_eq!(dates.len(), 5);
    for row in dates {
        let [year, month, day, hour, minute, second]: [u32; 6] =
            serde_json::from_value(row[0].clone()).unwrap();
        let now = DateTime {
            year: year as i32,
            month,
            day,
            hour,
            minute,
            second,
        };
        let template = ChatTemplate::new("test", &template).unwrap().at(now);
        assert_eq!(
            template.render(&[], false, &Map::new()).unwrap(),
            text(&row[1])
        );
    }
    let today = render("{{ strftime_now('%Y') }}").unwrap();
    assert!(today.parse::<i32>().unwrap() >= 2024, "{today}");
}

/// llama-cpp-python's CVE-2024-34359, SGLang's CVE-2026-5760, jinja2's CVE-2024-56326 and their kin:
/// from any value of Python's a template reaches all of Python.
#[test]
fn a_template_reaches_nothing_outside_of_it() {
    let reach = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c.__name__ }}{% endfor %}",
        "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('id').read() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ joiner.__init__.__globals__.os.system('id') }}",
        "{{ namespace.__init__.__globals__.os.system('id') }}",
        "{{ messages.__class__.__init__.__globals__['sys'].modules['os'].system('id') }}",
        "{{ ('{0.__class__.__init__.__globals__}' | attr('format'))(messages) }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ '{0[__class__]}'.format_map({'0': messages}) }}",
        "{{ messages | map(attribute='__class__.__mro__') | list | first | first }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as p %}{{ p }}",
        "{% extends 'config.json' %}",
        "{{ open('/etc/passwd').read() }}",
        "{{ get_flashed_messages.__globals__.__builtins__.open('/etc/passwd').read() }}",
        "{{ raise_exception.__globals__.os.system('id') }}",
        "{{ strftime_now.__globals__.os.system('id') }}",
        "{{ debug() }}",
    ];
    for template in reach {
        match render(template) {
            Err(Error::TemplateFailed { .. } | Error::TemplateSyntax { .. }) => {}
            other => panic!("{template}: {other:?}"),
        }
    }
}
