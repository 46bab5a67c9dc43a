//! Reading the head of a chat body: plain text and the escape-heavy text of real code prompts.

use std::fmt::Write as _;
use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use fairlead::openai::{Api, head};
use serde::Deserialize;
use serde::de::IgnoredAny;

const KIB: usize = 1024;
const SIZES: [usize; 3] = [KIB, 220 * KIB, 2 * KIB * KIB];

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
enum Text {
    Plain,
    Escapes,
    Cjk,
}

/// A chat body of about `bytes`, with several turns and the model last.
fn body(bytes: usize, text: Text) -> Vec<u8> {
    let phrase = match text {
        Text::Plain => "the quick brown fox jumps over the lazy dog, and then it rests a while. ",
        Text::Escapes => "    let \\\"x\\\" = a[i];\\n\\tif x > 0 { say(\\\"日本\\\\n\\\"); }\\n",
        Text::Cjk => "敏捷的棕色狐狸跳过了懒狗，然后它休息了一会儿。",
    };
    let mut body = String::from("{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"}");
    while body.len() + 200 < bytes {
        body.push_str(",{\"role\":\"user\",\"content\":\"");
        let end = bytes.min(body.len() + 4 * KIB);
        while body.len() + 200 < end {
            body.push_str(phrase);
        }
        body.push_str("\"}");
    }
    let tail = "],\"temperature\":0.7,\"stream\":true,\"max_tokens\":256,\"model\":\"llama-3-8b\"}";
    write!(body, "{tail}").ok();
    body.into_bytes()
}

fn read(bencher: Bencher<'_, '_>, bytes: usize, text: Text) {
    let body = body(bytes, text);
    bencher
        .counter(BytesCount::from(body.len()))
        .bench(|| head::read(Api::Chat, None, black_box(&body)).is_ok_and(|head| head.stream));
}

#[divan::bench(args = SIZES)]
fn plain(bencher: Bencher<'_, '_>, bytes: usize) {
    read(bencher, bytes, Text::Plain);
}

#[divan::bench(args = SIZES)]
fn escapes(bencher: Bencher<'_, '_>, bytes: usize) {
    read(bencher, bytes, Text::Escapes);
}

#[divan::bench(args = SIZES)]
fn cjk(bencher: Bencher<'_, '_>, bytes: usize) {
    read(bencher, bytes, Text::Cjk);
}

/// How much of the above is the check that the whole body is UTF-8.
#[divan::bench(args = SIZES)]
fn utf8_only_plain(bencher: Bencher<'_, '_>, bytes: usize) {
    let body = body(bytes, Text::Plain);
    bencher.bench(|| std::str::from_utf8(black_box(&body)).is_ok());
}

#[divan::bench(args = SIZES)]
fn utf8_only_escapes(bencher: Bencher<'_, '_>, bytes: usize) {
    let body = body(bytes, Text::Escapes);
    bencher.bench(|| std::str::from_utf8(black_box(&body)).is_ok());
}

#[divan::bench(args = SIZES)]
fn utf8_only_cjk(bencher: Bencher<'_, '_>, bytes: usize) {
    let body = body(bytes, Text::Cjk);
    bencher.bench(|| std::str::from_utf8(black_box(&body)).is_ok());
}

/// The least that a parser can do: three fields, nothing kept raw, nothing checked. What `plain`
/// and `escapes` add to it is the price of the raw prompt and of the checks.
#[derive(Deserialize)]
struct Floor<'a> {
    #[serde(borrow)]
    model: &'a str,
    stream: bool,
    #[serde(rename = "messages")]
    _messages: IgnoredAny,
}

fn floor(bencher: Bencher<'_, '_>, bytes: usize, text: Text) {
    let body = body(bytes, text);
    bencher.bench(|| {
        serde_json::from_slice::<Floor<'_>>(black_box(&body)).is_ok_and(|floor| floor.stream && floor.model.is_empty())
    });
}

#[divan::bench(args = SIZES)]
fn floor_plain(bencher: Bencher<'_, '_>, bytes: usize) {
    floor(bencher, bytes, Text::Plain);
}

#[divan::bench(args = SIZES)]
fn floor_escapes(bencher: Bencher<'_, '_>, bytes: usize) {
    floor(bencher, bytes, Text::Escapes);
}
