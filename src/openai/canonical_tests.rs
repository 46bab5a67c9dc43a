use std::fmt::Write as _;
use std::ops::ControlFlow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Api, canonical, head};

fn canonical_of(api: Api, body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    canonical::write(&head::read(api, None, body.as_bytes()).unwrap(), |piece| {
        bytes.extend_from_slice(piece);
        ControlFlow::Continue(())
    });
    bytes
}

/// A chat whose messages are given as JSON.
fn chat(messages: &str) -> Vec<u8> {
    canonical_of(Api::Chat, &format!("{{\"model\":\"m\",\"messages\":{messages}}}"))
}

#[track_caller]
fn alike(one: &str, other: &str) {
    assert_eq!(chat(one).escape_ascii().to_string(), chat(other).escape_ascii().to_string());
}

#[track_caller]
fn unlike(one: &str, other: &str) {
    assert_ne!(chat(one).escape_ascii().to_string(), chat(other).escape_ascii().to_string());
}

#[test]
fn what_an_engine_reads_alike_is_written_alike() {
    let plain = r#"[{"role":"user","content":"é/\n\"😀"}]"#;
    alike(plain, r#"[{"role":"user","content":"\u00e9\/\u000a\u0022\ud83d\uDE00"}]"#);
    alike(plain, r#" [ { "role" : "user" , "content" : "é/\n\"😀" } ] "#);
    alike(plain, r#"[{"content":"é/\n\"😀","role":"user"}]"#);
    alike(plain, r#"[{"r\u006fle":"user","content":"é/\n\"😀","name":null}]"#);
    alike(plain, r#"[{"role":"user","content":[{"type":"text","text":"é/\n\"😀"}]}]"#);
    alike(plain, r#"[{"role":"user","content":[{"text":"é/\n\"😀","type":"input_text","cache_control":{"a":"}"}}]}]"#);
    let smile = |times: usize, one: &str| format!(r#"[{{"role":"user","{}":1}}]"#, one.repeat(times));
    alike(&smile(12, "😀"), &smile(12, r"\ud83d\ude00"));
    alike(plain, r#"[{"role":"user","cache_control":{"type":"ephemeral"},"content":"é/\n\"😀"}]"#);
}

#[test]
fn what_an_engine_reads_otherwise_is_written_otherwise() {
    unlike(r#"[{"role":"user","content":"a"}]"#, r#"[{"role":"system","content":"a"}]"#);
    unlike(r#"[{"role":"user","content":"a"}]"#, r#"[{"role":"user","content":"A"}]"#);
    unlike(r#"[{"role":"user","content":"\\n"}]"#, r#"[{"role":"user","content":"\n"}]"#);
    unlike(r#"[{"role":"user","content":"ab"}]"#, r#"[{"role":"user","content":["a","b"]}]"#);
    unlike(r#"[{"role":"u","content":"a"}]"#, r#"[{"role":"u","name":"x","content":"a"}]"#);
    unlike(r#"[{"role":"u","content":"1"}]"#, r#"[{"role":"u","content":1}]"#);
    unlike(r#"[{"role":"u","content":"a"},{"role":"v"}]"#, r#"[{"role":"u","content":"a"},{"role":"w"}]"#);
    let field = |last: char| format!(r#"[{{"{}{last}":"a"}}]"#, "long ".repeat(200));
    unlike(&field('x'), &field('y'));
    let call = |name: &str| format!(r#"[{{"role":"assistant","tool_calls":[{{"function":{{"name":"{name}"}}}}]}}]"#);
    unlike(&call("add"), &call("sub"));
    let image =
        |url: &str| format!(r#"[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]"#);
    unlike(&image("data:image/png;base64,AAAA"), &image("data:image/png;base64,AAAB"));
    alike(&image("data:image/png;base64,AAAA"), &image(r"data:image\/png;base64,AAAA"));
}

#[test]
fn every_message_counts_not_only_the_first() {
    let messages = |last: &str| {
        format!(
            r#"[{{"role":"system","content":"s"}},{{"role":"user","content":"one"}},{{"role":"user","content":"{last}"}}]"#
        )
    };
    unlike(&messages("two"), &messages("three"));
}

#[test]
fn tools_and_the_system_prompt_come_first() {
    let body = |system: &str, tool: &str| {
        let body = json!({
            "model": "m", "system": system, "tools": [{ "name": tool }], "messages": [{ "role": "user", "content": "hi" }],
        });
        canonical_of(Api::Messages, &body.to_string())
    };
    assert_ne!(body("a", "x"), body("b", "x"));
    assert_ne!(body("a", "x"), body("a", "y"));
    let beside = canonical_of(Api::Messages, r#"{"system":"s","messages":[{"role":"user","content":"hi"}]}"#);
    assert_eq!(beside, chat(r#"[{"role":"system","content":"s"},{"role":"user","content":"hi"}]"#));
    let without = canonical_of(Api::Chat, r#"{"tools":[],"messages":[{"role":"user","content":"hi"}]}"#);
    assert_eq!(without, chat(r#"[{"role":"user","content":"hi"}]"#));
}

#[test]
fn a_long_image_is_a_short_digest() {
    let url = format!("data:image/png;base64,{}", "A".repeat(100_000));
    let with = chat(
        &json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": url } }] }]).to_string(),
    );
    assert!(with.len() < 100, "{}", with.len());
}

#[test]
fn prompts_of_other_apis_are_written_too() {
    let prompt = |body: &str| canonical_of(Api::Completions, body);
    assert!(prompt(r#"{"prompt":"once upon"}"#).ends_with(b"once upon"));
    assert!(prompt(r#"{"prompt":"once upon a"}"#).starts_with(&prompt(r#"{"prompt":"once upon"}"#)));
    assert_ne!(prompt(r#"{"prompt":[1,23]}"#), prompt(r#"{"prompt":[12,3]}"#));
    assert_ne!(prompt(r#"{"prompt":["a","b"]}"#), prompt(r#"{"prompt":["ab"]}"#));
    let input = canonical_of(Api::Responses, r#"{"input":"hi","instructions":"s"}"#);
    assert!(input.ends_with(b"hi"));
}

#[test]
fn a_sink_that_breaks_off_is_asked_no_more() {
    let body = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}", "\\n".repeat(1000));
    let mut calls = 0;
    canonical::write(&head::read(Api::Chat, None, body.as_bytes()).unwrap(), |_| {
        calls += 1;
        if calls == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(calls, 10);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z\"\\\\/\n\u{e9}\u{1f600} ]{0,12}", Just("text".to_owned()), Just("url".to_owned())]
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            Just("role".to_owned()),
            Just("content".to_owned()),
            Just("type".to_owned()),
            Just("text".to_owned()),
            text()
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn escaped(json: &str) -> String {
    let mut out = String::new();
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write!(out, "\\u{unit:04x}").unwrap());
        }
    }
    out
}

proptest! {
    #[test]
    fn the_way_json_is_written_does_not_matter(messages in prop::collection::vec(tree(), 0..4)) {
        let messages = Value::from(messages);
        let plain = messages.to_string();
        alike(&plain, &serde_json::to_string_pretty(&messages).unwrap());
        alike(&plain, &escaped(&plain));
    }

    #[test]
    fn a_conversation_that_goes_on_begins_as_before(messages in prop::collection::vec((text(), text()), 1..5), more in text()) {
        let of = |messages: &[(String, String)]| -> Value {
            messages.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect()
        };
        let (before, mut longer) = (chat(&of(&messages).to_string()), messages.clone());
        longer.push((more.clone(), more.clone()));
        prop_assert!(chat(&of(&longer).to_string()).starts_with(&before));
        longer = messages;
        longer.last_mut().unwrap().1.push_str(&more);
        prop_assert!(chat(&of(&longer).to_string()).starts_with(&before));
    }

    #[test]
    fn different_texts_are_written_differently(one in prop::collection::vec((text(), text()), 0..4),
                                               other in prop::collection::vec((text(), text()), 0..4)) {
        let of = |messages: &[(String, String)]| {
            let list: Value = messages.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect();
            chat(&list.to_string())
        };
        prop_assert_eq!(of(&one) == of(&other), one == other);
    }
}
