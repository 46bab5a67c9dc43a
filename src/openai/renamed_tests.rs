use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What goes on of an answer that comes in these pieces.
fn passed<'a>(mut renamed: Renamed, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend(renamed.pass(piece, false).unwrap_or_else(|| piece.to_vec()));
        assert!(renamed.held.len() <= ESCAPED_BYTES_MAX * renamed.from.len());
    }
    out.extend(renamed.pass(b"", true).unwrap_or_default());
    String::from_utf8(out).unwrap()
}

/// The same for an answer in one piece, in pieces of one byte, and cut in two at every place.
fn every_split(make: impl Fn() -> Renamed, text: &str) -> String {
    let whole = passed(make(), [text.as_bytes()]);
    assert_eq!(passed(make(), text.as_bytes().chunks(1)), whole);
    for cut in 0..=text.len() {
        let (one, two) = text.as_bytes().split_at(cut);
        assert_eq!(passed(make(), [one, two]), whole, "{cut}");
    }
    whole
}

fn json(text: &str) -> String {
    every_split(|| Renamed::in_json("served", "as\"ked"), text)
}

fn events(text: &str) -> String {
    every_split(|| Renamed::in_events("served", "asked"), text)
}

#[test]
fn the_model_of_a_json_answer_gets_its_other_name_and_not_a_byte_changes_besides() {
    let text = r#" {"id":"served","object":{"model":"served"},"choices":[{"model":"served","text":"\"model\":\"served\""}],
        "x":1.50,"model" : "served" ,"usage":{"model":"served"}} "#;
    let expected = text.replace(r#""model" : "served""#, r#""model" : "as\"ked""#);
    assert_eq!(json(text), expected);
}

#[test]
fn a_name_is_known_however_it_is_escaped() {
    assert_eq!(json(r#"{"model":"\u0073\u0065\u0072\u0076\u0065\u0064"}"#), r#"{"model":"as\"ked"}"#);
    let slash = || Renamed::in_json("org/ü😀", "asked");
    for written in [r"org\/\u00fc\ud83d\ude00", "org/ü😀"] {
        assert_eq!(every_split(slash, &format!(r#"{{"model":"{written}"}}"#)), r#"{"model":"asked"}"#);
    }
}

#[test]
fn what_is_another_model_or_no_model_stays() {
    for text in [
        r#"{"model":"serve"}"#,
        r#"{"model":"served "}"#,
        r#"{"model":"served by somebody whose name is longer than any way to write the one that goes"}"#,
        r#"{"model":null,"name":"served"}"#,
        r#"{"model":["served"],"models":"served","a":{"b":[{"model":"served"}]}}"#,
        r#"{"message":{"model":"served"}}"#,
        r#"["model","served"]"#,
        r#""model":"served""#,
        r#"{"model":"served"#,
        r#"{"model":"serv\"#,
        r#"{"a":1}{"model":"served"}"#,
        r#"x {"model":"served"}"#,
        "",
    ] {
        assert_eq!(json(text), text);
    }
}

#[test]
fn the_model_of_every_event_gets_its_other_name() {
    let text = "event: x\ndata: {\"id\":1,\"model\":\"served\",\"choices\":[]}\r\n\r\n: {\"model\":\"served\"}\n\
        data:{\"model\":\"served\"}\r\rid: data: {\"model\":\"served\"}\n\ndata: [DONE]\n\n";
    let expected = "event: x\ndata: {\"id\":1,\"model\":\"asked\",\"choices\":[]}\r\n\r\n: {\"model\":\"served\"}\n\
        data:{\"model\":\"asked\"}\r\rid: data: {\"model\":\"served\"}\n\ndata: [DONE]\n\n";
    assert_eq!(events(text), expected);
}

#[test]
fn events_that_nest_their_answer_get_its_other_name_too() {
    for outer in ["message", "response"] {
        let text = format!(
            "data: {{\"type\":\"x\",\"{outer}\":{{\"id\":\"1\",\"in\":{{\"model\":\"served\"}},\"model\":\"served\"}},\"n\":1}}\n\n"
        );
        let expected = text.replace("},\"model\":\"served\"", "},\"model\":\"asked\"");
        assert_ne!(text, expected);
        assert_eq!(events(&text), expected);
    }
    let text = "data: {\"message\":{\"n\":[]},\"model\":\"served\"}\n\ndata: {\"error\":{\"model\":\"served\"}}\n\n";
    assert_eq!(events(text), text.replacen("served", "asked", 1));
}

#[test]
fn a_line_that_breaks_off_costs_only_itself() {
    let text = "data: {\"model\":\"serv\ndata: {\"a\":\"\\\ndata: {\"model\":\"served\"}\n\n";
    assert_eq!(events(text), text.replace("served", "asked"));
}

#[test]
fn a_piece_that_does_not_change_is_not_copied() {
    let mut renamed = Renamed::in_events("served", "asked");
    assert_eq!(renamed.pass(b"data: {\"model\":\"", false), None);
    assert_eq!(renamed.pass(b"serv", false), Some(Vec::new()));
    assert_eq!(renamed.pass(b"ice\"}\n\n", false).as_deref(), Some(&b"service\"}\n\n"[..]));
    assert_eq!(renamed.pass(b"data: [DONE]\n\n", true), None);
}

#[test]
fn what_is_held_back_comes_out_at_the_end() {
    let mut renamed = Renamed::in_json("served", "asked");
    assert_eq!(renamed.pass(b"{\"model\":\"serv", false).as_deref(), Some(&b"{\"model\":\""[..]));
    assert_eq!(renamed.finish(), b"serv");
    assert!(renamed.finish().is_empty());
}

/// Words out of which both JSON and nonsense can come.
fn word() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\n",
            "\r",
            " ",
            "data:",
            "data: ",
            "\"model\"",
            "\"model\":",
            "\"served\"",
            "served",
            "\"message\":{",
            "\"response\":{",
            "1",
            "null",
            "\"a\"",
            "é",
        ][..],
    )
}

fn pieces<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

/// Some JSON text with a member `model` at its top, and the same with another name.
fn answer() -> impl Strategy<Value = (String, String)> {
    let leaf = prop_oneof![
        any::<Option<bool>>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        "[a-z\"\\\\\n{}\\[\\]:,é😀]{0,12}|served|model".prop_map(serde_json::Value::from),
    ];
    let tree = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("model|message|[a-z\"\\\\]{0,10}", inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    });
    let member =
        ("[a-l\"\\\\é]{0,9}", tree).prop_map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key)));
    (prop::collection::vec(member.clone(), 0..4), prop::collection::vec(member, 0..4), "[ \t]{0,2}").prop_map(
        |(before, after, space)| {
            let with = |name: &str| {
                let model = format!("\"model\"{space}:{space}\"{name}\"{space}");
                let members: Vec<_> = before.iter().cloned().chain([model]).chain(after.iter().cloned()).collect();
                format!("{space}{{{space}{}}}", members.join(&format!("{space},")))
            };
            (with("served"), with("the name that was asked for"))
        },
    )
}

proptest! {
    #[test]
    fn any_split_of_anything_gives_the_same_answer(
        words in prop::collection::vec(word(), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        is_stream: bool,
    ) {
        let text = words.concat();
        let make = || Renamed::new("served", "asked", is_stream);
        let whole = passed(make(), [text.as_bytes()]);
        prop_assert_eq!(passed(make(), pieces(text.as_bytes(), &cuts)), whole.clone());
        prop_assert_eq!(whole.replace("asked", "served"), text);
    }

    #[test]
    fn only_the_model_of_a_json_text_changes(
        (text, expected) in answer(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let make = || Renamed::in_json("served", "the name that was asked for");
        prop_assert_eq!(passed(make(), pieces(text.as_bytes(), &cuts)), expected);
    }

    #[test]
    fn only_the_models_of_events_change(
        answers in prop::collection::vec(answer(), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ending in select(&["\n\n", "\r\n\r\n", "\r\r", "\nid: 1\n\n"][..]),
    ) {
        let make = || Renamed::in_events("served", "the name that was asked for");
        let (mut text, mut expected) = (String::new(), String::new());
        for (one, other) in &answers {
            text.extend(["data: ", one, ending]);
            expected.extend(["data: ", other, ending]);
        }
        prop_assert_eq!(passed(make(), pieces(text.as_bytes(), &cuts)), expected);
    }
}
