//! A tokenizer of single letters and a template like those that models have.

use serde_json::json;

use super::*;

/// A template like those of real models, with the tools before the messages.
const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ bos_token }}{{ m['role'] }}:\
                        {{ m['content'].strip() }}\n{% endfor %}{% if add_generation_prompt %}a>{% endif %}";

fn model(folder: &Path) {
    // One word for each character; what is not known is `?`.
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..128_u8).map(|byte| (char::from(byte).to_string(), json!(byte))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "(?s)." }, "behavior": "Isolated", "invert": false },
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "?" }
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = json!({ "chat_template": TEMPLATE, "bos_token": { "content": "^" }, "eos_token": "$" });
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

fn text_of(model: &Model, is_chat: bool, body: &serde_json::Value) -> Result<String, String> {
    let tokens = model.tokens(is_chat, body.to_string().as_bytes())?;
    Ok(tokens.into_iter().map(|token| char::from(token as u8)).collect())
}

#[test]
fn a_chat_becomes_what_the_template_makes_of_it() {
    let folder = std::env::temp_dir().join(format!("fairlead-tokenizer-{}", std::process::id()));
    model(&folder.join("org/letters"));
    let config = Config { source: TokenSource::Directory, directory: Some(folder.clone()), ..Config::default() };
    let local = Local::of(&config).unwrap().unwrap();
    let model = local.by_name.get("org/letters").unwrap();
    let parts = json!([{ "type": "text", "text": "one" }, { "type": "text", "text": "two" }]);
    let body = json!({ "messages": [{ "role": "u", "content": " hi " }, { "role": "u", "content": parts }] });
    assert_eq!(text_of(model, true, &body).unwrap(), "^u:hi\n^u:one\ntwo\na>");
    let body = json!({ "messages": [{ "role": "u", "content": "<b>" }], "tools": [{ "z": 1, "a": "<" }],
        "chat_template_kwargs": { "bos_token": "!" }, "add_generation_prompt": false });
    let text = text_of(model, true, &body).unwrap();
    assert!(text.ends_with("]\n!u:<b>\n") && text.contains("\"a\": \"<\"") && text.contains(", "), "{text}");
    assert_eq!(text_of(model, false, &json!({ "prompt": "abc" })).unwrap(), "abc");
    assert!(text_of(model, false, &json!({ "prompt": ["a", "b"] })).is_err());
    assert!(text_of(model, true, &json!({ "messages": 5 })).is_err());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_without_a_tokenizer_is_a_fault() {
    let config =
        Config { source: TokenSource::Directory, directory: Some("/nowhere/at/all".into()), ..Config::default() };
    assert!(Local::of(&config).unwrap_err().contains("/nowhere/at/all"));
}
