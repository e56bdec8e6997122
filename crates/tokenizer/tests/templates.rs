//! Chat templates give the text that Python's jinja2 gives, or fail in the same way.

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

fn compare(name: &str, found: Result<String, Error>, expected: &Value, what: &str) {
    match (found, &expected["error"]) {
        (Ok(found), Value::Null) => assert_eq!(found, text(&expected["text"]), "{name} {what}"),
        (Err(error), Value::String(expected_kind)) => {
            assert_eq!(kind(&error), expected_kind, "{name} {what}: {error}");
            if let Error::TemplateRefused { message, .. } = error {
                assert_eq!(message, text(&expected["message"]), "{name} {what}");
            }
        }
        (found, expected) => panic!("{name} {what}: {found:?}, expected {expected}"),
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
                compare(
                    name,
                    found,
                    rows.next().unwrap(),
                    &format!("conversation {i}"),
                );
            }
        }
        assert!(rows.next().is_none());
    }
}
