//! Any body that a tree parser accepts is written in one form, whatever its spaces and escapes; none makes it panic.
#![no_main]

use std::fmt::Write as _;
use std::ops::ControlFlow;

use fairlead::openai::{Api, canonical, head};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn written(api: Api, body: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    canonical::write(&head::read(api, None, body.as_bytes()).ok()?, |piece| {
        bytes.extend_from_slice(piece);
        ControlFlow::Continue(())
    });
    Some(bytes)
}

/// Valid JSON has characters beyond ASCII in strings only.
fn escaped(json: &str) -> String {
    let mut out = String::new();
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").unwrap();
            }
        }
    }
    out
}

fuzz_target!(|body: &str| {
    for api in [Api::Chat, Api::Completions, Api::Messages, Api::Responses] {
        let first = written(api, body);
        if serde_json::from_str::<Value>(body).is_ok() {
            assert_eq!(first, written(api, &escaped(body)));
        }
    }
});
