//! Tests of [`super::head`]: what it reads, what it refuses, and that it agrees with a tree parser.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::head::{Head, read, read_cut};
use super::{Api, BodyError};

fn chat(body: &str) -> Result<Head<'_>, BodyError> {
    read(Api::Chat, Some("application/json"), body.as_bytes())
}

fn fault(body: &str) -> BodyError {
    chat(body).unwrap_err()
}

#[test]
fn a_chat_head_is_read_whole() {
    let body = r#" {"messages":[{"role":"user","content":"hi"}],"model":"llama\u002d3","stream":true,
        "stream_options":{"x":[1],"include_usage":true},"user":"ann","max_tokens":5,"max_completion_tokens":7,
        "n":2,"priority":-3,"tools":[],"session_id":"s","prompt_cache_key":"k","cache_salt":"c","metadata":{"user_id":5}} "#;
    let head = chat(body).unwrap();
    assert_eq!((head.require_model(Api::Chat), head.model.as_deref()), (Ok(()), Some("llama-3")));
    assert!(head.stream && head.include_usage);
    assert_eq!(head.user.as_deref(), Some("ann"));
    assert_eq!((head.max_tokens, head.n, head.priority), (Some(7), Some(2), Some(-3)));
    assert_eq!(head.prompt.unwrap().get(), r#"[{"role":"user","content":"hi"}]"#);
    assert_eq!(head.tools.unwrap().get(), "[]");
    assert_eq!(head.session_id.as_deref(), Some("s"));
    assert_eq!(head.prompt_cache_key.as_deref(), Some("k"));
    assert_eq!(head.cache_salt.as_deref(), Some("c"));
}

#[test]
fn each_api_has_its_own_prompt_and_limit() {
    let body = br#"{"prompt":"p","messages":["m"],"input":"i","system":"s","instructions":"t","query":"q",
        "documents":["d"],"text":"x","text_1":"1","text_2":"2","max_tokens":1,"max_output_tokens":2,
        "sampling_params":{"max_new_tokens":3},"metadata":{"user_id":"u"}}"#;
    for (api, prompt, preamble, max_tokens) in [
        (Api::Completions, "\"p\"", None, Some(1)),
        (Api::Responses, "\"i\"", Some("\"t\""), Some(2)),
        (Api::Messages, "[\"m\"]", Some("\"s\""), Some(1)),
        (Api::Rerank, "[\"d\"]", Some("\"q\""), None),
        (Api::Generate, "\"x\"", None, Some(3)),
    ] {
        let head = read(api, None, body).unwrap();
        assert_eq!(head.prompt.unwrap().get(), prompt, "{api:?}");
        assert_eq!(head.preamble.map(RawValue::get), preamble, "{api:?}");
        assert_eq!(head.max_tokens, max_tokens, "{api:?}");
        assert_eq!(head.user.is_some(), api == Api::Messages);
    }
}

#[test]
fn a_generate_batch_with_a_list_of_sampling_params_passes() {
    let body = br#"{"text":["a","b"],"sampling_params":[{"max_new_tokens":3},{}]}"#;
    let head = read(Api::Generate, None, body).unwrap();
    assert_eq!((head.model.is_none(), head.max_tokens), (true, None));
    let refused = Err(BodyError::MissingModel);
    assert_eq!((head.require_model(Api::Generate), head.require_model(Api::Chat)), (Ok(()), refused));
}

#[test]
fn null_counts_as_absent() {
    let head = chat(
        r#"{"model":null,"stream":null,"user":null,"messages":null,"max_completion_tokens":null,
        "max_tokens":4,"n":null,"stream_options":null,"tools":null,"metadata":null}"#,
    );
    let head = head.unwrap();
    assert!(head.model.is_none() && head.prompt.is_none() && head.tools.is_none());
    assert_eq!(head.max_tokens, Some(4));
}

#[test]
fn a_limit_may_be_written_as_a_float_and_a_negative_one_is_none() {
    assert_eq!(chat(r#"{"max_tokens":16.0}"#).unwrap().max_tokens, Some(16));
    assert_eq!(chat(r#"{"max_tokens":-1}"#).unwrap().max_tokens, None);
    assert!(matches!(fault(r#"{"max_tokens":1.5}"#), BodyError::WrongType { .. }));
}

#[test]
fn a_field_that_we_read_may_occur_once_only() {
    for (body, field) in [
        (r#"{"model":"cheap","model":"dear"}"#, "model"),
        (r#"{"model":null,"mod\u0065l":"dear"}"#, "model"),
        (r#"{"messages":[],"stream":true,"messages":[]}"#, "messages"),
    ] {
        assert_eq!(fault(body), BodyError::Duplicate { field }, "{body}");
    }
    assert_eq!(fault(r#"{"model":1"#).to_string(), "`model` must be a string (line 1 column 10)");
    assert!(chat(r#"{"model":"a","other":1,"other":2}"#).is_ok());
}

#[test]
fn steering_fields_are_refused_however_they_are_written() {
    for field in super::fields::STEERING_FIELDS {
        for value in ["null", "{}", "\"10.0.0.1\""] {
            let body = format!(r#"{{"model":"m","{field}":{value}}}"#);
            assert_eq!(fault(&body), BodyError::SteeringField(field));
        }
    }
    let error = fault(r#"{"kv_transfer_param\u0073":{"do_remote_prefill":true}}"#);
    assert_eq!(error, BodyError::SteeringField("kv_transfer_params"));
    assert!(chat(r#"{"messages":[{"kv_transfer_params":1}]}"#).is_ok());
}

#[test]
fn every_fault_is_told_apart_and_placed() {
    let syntax = |line, column| move |error: &BodyError| matches!(error, BodyError::Syntax { line: l, column: c, .. } if (*l, *c) == (line, column));
    assert_eq!(fault(""), BodyError::Empty);
    assert_eq!(fault(" \r\n\t"), BodyError::Empty);
    assert_eq!(fault("[1]"), BodyError::NotAnObject);
    assert_eq!(fault("\"x\""), BodyError::NotAnObject);
    assert_eq!(fault("{\n\"model\":\"m\""), BodyError::Truncated { line: 2, column: 11 });
    assert!(syntax(1, 4)(&fault("{} x")));
    assert!(syntax(2, 1)(&fault("{\"a\":1\n\"b\":2}")));
    assert!(matches!(fault(r#"{"model":5}"#), BodyError::WrongType { field: "model", .. }));
    assert!(matches!(fault(r#"{"stream":"yes"}"#), BodyError::WrongType { field: "stream", .. }));
    assert!(matches!(
        fault(r#"{"stream_options":{"include_usage":1}}"#),
        BodyError::WrongType { field: "stream_options", .. }
    ));
    let body = b"{\"messages\":\"\xff\"}";
    assert_eq!(read(Api::Chat, None, body).unwrap_err(), BodyError::InvalidUtf8 { byte: 13 });
    let form = read(Api::Chat, Some("Multipart/form-data; boundary=x"), b"--x");
    assert!(matches!(form, Err(BodyError::ContentType { .. })));
    assert_eq!(fault("{} x").to_string(), "the body is not valid JSON: trailing characters at line 1 column 4");
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = "[".repeat(1_000_000);
    for key in ["messages", "other", "stream_options", "sampling_params", "model", "metadata"] {
        for api in [Api::Chat, Api::Generate, Api::Messages] {
            assert!(read(api, None, format!("{{\"{key}\":{deep}").as_bytes()).is_err());
        }
    }
    let closed = format!("{{\"messages\":{deep}{}}}", "]".repeat(1_000_000));
    assert!(chat(&closed).is_ok());
}

#[test]
fn a_cut_body_gives_what_came_before_the_cut() {
    let body = r#"{"model":"m","max_tokens":128,"n":1.5e1,"messages":[{"content":"héllo"#;
    let cut = read_cut(Api::Chat, None, body.as_bytes()).unwrap();
    assert_eq!((cut.head.max_tokens, cut.fault), (Some(128), None));
    let cut = |end: usize| read_cut(Api::Chat, None, &body.as_bytes()[..end]);
    assert!(cut(11).is_none());
    assert_eq!(cut(28).unwrap().head.max_tokens, None, "a number at the cut may go on");
    assert!(cut(body.len() - 4).unwrap().fault.is_none(), "inside a character");
}

#[test]
fn a_cut_body_that_would_be_refused_says_so() {
    for body in [
        "{\"bootstrap_room\":1",
        "{\"model\":5,",
        "{\"model\":\"a\",\"model\":",
        "[1,",
        "{\"a\" 1,",
        "{\"a\":\"\u{1}\",",
    ] {
        let cut = read_cut(Api::Chat, None, body.as_bytes()).unwrap();
        assert!(cut.fault.is_some(), "{body}");
    }
    assert!(read_cut(Api::Chat, None, b"{\"model\":\"m\",\xff\xff").unwrap().fault.is_some());
}

/// A string as JSON, with some characters written as escapes.
fn escaped(text: &str, every: usize) -> String {
    let mut json = String::from("\"");
    for (index, c) in text.chars().enumerate() {
        if index % every == 0 {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(json, "\\u{unit:04x}").unwrap();
            }
        } else {
            let quoted = serde_json::to_string(&c).unwrap();
            json += &quoted[1..quoted.len() - 1];
        }
    }
    json + "\""
}

fn field() -> impl Strategy<Value = (String, Value)> {
    let text = || prop_oneof!["\\PC{0,12}", "[\"\\\\/\n\u{0}-\u{20}é😀]{0,6}"].prop_map(Value::from);
    let member = |name: &'static str, value: BoxedStrategy<Value>| (Just(name.to_owned()), value);
    let nullable = |value: BoxedStrategy<Value>| prop_oneof![4 => value, 1 => Just(Value::Null)].boxed();
    prop_oneof![
        member("model", nullable(text().boxed())),
        member("user", nullable(text().boxed())),
        member("prompt_cache_key", nullable(text().boxed())),
        member("stream", nullable(any::<bool>().prop_map(Value::from).boxed())),
        member("max_tokens", nullable(any::<u64>().prop_map(Value::from).boxed())),
        member("max_completion_tokens", nullable(any::<u32>().prop_map(Value::from).boxed())),
        member("stream_options", any::<bool>().prop_map(|flag| json!({"a": [{}], "include_usage": flag})).boxed()),
        member("messages", text().prop_map(|text| json!([{"content": text, "n": 1.5e300}])).boxed()),
        ("[a-z]{1,3}x", text()),
    ]
}

proptest! {
    #[test]
    fn the_head_agrees_with_a_tree_parser(
        fields in prop::collection::btree_map("[a-z]", field(), 0..8),
        every in 1_usize..5,
        space in "[ \n\r\t]{0,2}",
        cut in any::<prop::sample::Index>(),
    ) {
        let mut unique = std::collections::BTreeMap::new();
        unique.extend(fields.into_values());
        let members: Vec<String> = unique.iter().map(|(key, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), |text| escaped(text, every + 1));
            format!("{space}{}{space}:{space}{value}{space}", escaped(key, every))
        }).collect();
        let body = format!("{space}{{{}}}{space}", members.join(","));
        let tree: Value = serde_json::from_str(&body).unwrap();
        let head = chat(&body).unwrap();
        prop_assert_eq!(head.model.as_deref(), tree["model"].as_str());
        prop_assert_eq!(head.user.as_deref(), tree["user"].as_str());
        prop_assert_eq!(head.prompt_cache_key.as_deref(), tree["prompt_cache_key"].as_str());
        prop_assert_eq!(head.stream, tree["stream"].as_bool().unwrap_or(false));
        prop_assert_eq!(head.include_usage, tree["stream_options"]["include_usage"].as_bool().unwrap_or(false));
        let limit = tree["max_completion_tokens"].as_u64().or(tree["max_tokens"].as_u64());
        prop_assert_eq!(head.max_tokens, limit);
        let prompt: Value = head.prompt.map_or(Value::Null, |raw| serde_json::from_str(raw.get()).unwrap());
        prop_assert_eq!(&prompt, &tree["messages"]);

        let prefix = &body.as_bytes()[..cut.index(body.len())];
        if let Some(cut) = read_cut(Api::Chat, None, prefix) {
            prop_assert_eq!(cut.fault, None);
            prop_assert_eq!(cut.head.model, head.model);
            prop_assert!(cut.head.user.is_none() || cut.head.user == head.user);
            prop_assert!(cut.head.max_tokens.is_none_or(|limit| tree["max_tokens"] == limit || head.max_tokens == Some(limit)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let whole = read(Api::Messages, None, &body);
        let cut = read_cut(Api::Messages, None, &body);
        prop_assert!(whole.is_err() || cut.is_none_or(|cut| cut.fault.is_none()));
    }

    #[test]
    fn arbitrary_json_like_text_never_panics(body in "(\\{|\\}|\\[|\\]|,|:|\"model\"|\"stream\"|\"a\\\\u00|null|true|-1e9|\"|é){0,30}") {
        let whole = read(Api::Chat, None, body.as_bytes());
        let cut = read_cut(Api::Chat, None, body.as_bytes());
        prop_assert!(whole.is_err() || cut.is_none_or(|cut| cut.fault.is_none()));
    }
}
