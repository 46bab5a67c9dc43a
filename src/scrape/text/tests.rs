//! Tests of the scanner, and the naive parser that it must agree with.

use proptest::prelude::*;

use super::*;

type Owned = (String, Vec<(String, String)>, f64);

const VLLM: &[u8] = include_bytes!("../../../tests/fixtures/vllm-0.32.0-metrics-busy.txt");

fn scanned(page: &[u8]) -> (Vec<Owned>, ScanReport) {
    let mut samples = Vec::new();
    let report = scan(page, |sample| {
        let labels = sample.labels.iter();
        let labels = labels.map(|(name, value)| (name.into_owned(), value.into_owned()));
        let name = String::from_utf8(sample.name.to_vec()).unwrap();
        samples.push((name, labels.collect(), sample.value));
    });
    (samples, report)
}

fn one(line: &str) -> Owned {
    let (mut samples, report) = scanned(line.as_bytes());
    assert_eq!((report.samples, report.unreadable_lines), (1, 0), "{line}");
    samples.remove(0)
}

fn owned(name: &str, labels: &[(&str, &str)], value: f64) -> Owned {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    (name.to_owned(), labels.iter().map(pair).collect(), value)
}

#[test]
fn legal_lines_are_read() {
    for (line, expected) in [
        ("a 1", owned("a", &[], 1.0)),
        ("vllm:n_1{m=\"x\"} 2e3", owned("vllm:n_1", &[("m", "x")], 2000.0)),
        ("a{} 1", owned("a", &[], 1.0)),
        ("a{b=\"c\",} -1.5 1700000000000", owned("a", &[("b", "c")], -1.5)),
        (" a\t{ b = \"c\" , d=\"\" }\t+Inf\r", owned("a", &[("b", "c"), ("d", "")], f64::INFINITY)),
        ("a{b=\"c\"}1", owned("a", &[("b", "c")], 1.0)),
        ("a -Inf", owned("a", &[], f64::NEG_INFINITY)),
        (r#"a{x="a,b}c\"d"} 1"#, owned("a", &[("x", "a,b}c\"d")], 1.0)),
        (r#"a{x="\\",y="\n\t",z="="} 1"#, owned("a", &[("x", "\\"), ("y", "\n\\t"), ("z", "=")], 1.0)),
        ("a_bucket{le=\"+Inf\"} 3 # {trace=\"} 4\"} 0.5 1.5", owned("a_bucket", &[("le", "+Inf")], 3.0)),
        ("a 3 12.5 # {} 1", owned("a", &[], 3.0)),
        ("a{llm.name=\"é\"} 1", owned("a", &[("llm.name", "é")], 1.0)),
    ] {
        assert_eq!(one(line), expected, "{line}");
    }
    assert!(one("a NaN").2.is_nan());
}

#[test]
fn unreadable_lines_are_counted_and_skipped() {
    let page = "a\na{\na{b} 1\na{b=c} 1\na{b=\"c} 1\na{b=\"c\" d=\"e\"} 1\na{,} 1\na x\na 1 x\n1a 1\n<html>\na 1 2 3\na{b=\"c\\";
    let (samples, report) = scanned(format!("{page}\nok 1\n# x\n\n \n").as_bytes());
    assert_eq!(samples, [owned("ok", &[], 1.0)]);
    assert_eq!(report, ScanReport { samples: 1, unreadable_lines: 13 });
    assert_eq!(scanned(b"a{b=\"\xff\"} 1").0, [owned("a", &[("b", "\u{fffd}")], 1.0)]);
}

#[test]
fn a_label_is_found_by_name() {
    scan(br#"a{mm="1",m="x\"y",m="2"} 1"#, |sample| {
        assert_eq!(sample.labels.get("m").as_deref(), Some("x\"y"));
        assert!(sample.labels.get("x").is_none());
        assert!(matches!(sample.labels.get("mm"), Some(Cow::Borrowed("1"))));
    });
}

#[test]
fn a_real_vllm_page_is_read_whole() {
    let (samples, report) = scanned(VLLM);
    let lines = VLLM.split(|byte| *byte == b'\n');
    let expected = lines.filter(|line| !line.is_empty() && line[0] != b'#').count();
    assert_eq!(report, ScanReport { samples: expected, unreadable_lines: 0 });
    assert_eq!(samples, naive(std::str::from_utf8(VLLM).unwrap()).0);
    let waiting = samples.iter().filter(|(name, ..)| name == "vllm:num_requests_waiting");
    assert_eq!(waiting.count(), 1);
}

/// Character by character, with owned strings: slow and plain.
fn naive(page: &str) -> (Vec<Owned>, usize) {
    let mut samples = Vec::new();
    let mut unreadable = 0;
    for line in page.split('\n').map(str::trim_ascii) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match naive_line(line) {
            Some(sample) => samples.push(sample),
            None => unreadable += 1,
        }
    }
    (samples, unreadable)
}

fn naive_line(line: &str) -> Option<Owned> {
    let blank = |c: &char| matches!(c, ' ' | '\t');
    let mut chars = line.chars().peekable();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || "_:".contains(*c)) {
        name.push(c);
    }
    let mut labels = Vec::new();
    let mut spaced = false;
    while chars.next_if(blank).is_some() {
        spaced = true;
    }
    if chars.next_if_eq(&'{').is_some() {
        spaced = true;
        let mut after_label = false;
        loop {
            while chars.next_if(blank).is_some() {}
            match *chars.peek()? {
                '}' => break,
                ',' if after_label => after_label = false,
                ',' => return None,
                _ if after_label => return None,
                _ => {
                    labels.push(naive_label(&mut chars)?);
                    after_label = true;
                    continue;
                }
            }
            chars.next();
        }
        chars.next();
    }
    let rest: String = chars.collect();
    let words: Vec<&str> = rest.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let exemplar = words.iter().skip(1).position(|word| word.starts_with('#'));
    let plain = &words[..exemplar.map_or(words.len(), |at| at + 1)];
    let numbers: Option<Vec<f64>> = plain.iter().map(|word| word.parse().ok()).collect();
    let is_name = name.starts_with(|c: char| !c.is_ascii_digit());
    match numbers?[..] {
        [value] | [value, _] if is_name && spaced => Some((name, labels, value)),
        _ => None,
    }
}

fn naive_label(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<(String, String)> {
    let blank = |c: &char| matches!(c, ' ' | '\t');
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| !"=\",{} \t".contains(*c)) {
        name.push(c);
    }
    while chars.next_if(blank).is_some() {}
    chars.next_if_eq(&'=')?;
    while chars.next_if(blank).is_some() {}
    chars.next_if_eq(&'"')?;
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return (!name.is_empty()).then_some((name, value)),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

fn same(left: &Owned, right: &Owned) -> bool {
    let values = left.2.total_cmp(&right.2).is_eq() || (left.2.is_nan() && right.2.is_nan());
    left.0 == right.0 && left.1 == right.1 && values
}

proptest! {
    #[test]
    fn the_scanner_agrees_with_the_naive_parser(
        page in "(vllm:a|_b1|9|\\{|\\}|m=\"|\"|=|,|\\\\|\\\\n|\\\\\"|é| |\t|\r\n|\n| 1| 1e3| NaN| -Inf| \\+Inf|#| # \\{\\} 1|x=\"a,b\\}\"|\\{le=\"0\\.5\"\\} 7){0,25}",
    ) {
        let (samples, report) = scanned(page.as_bytes());
        let (expected, unreadable) = naive(&page);
        prop_assert_eq!(report.unreadable_lines, unreadable, "{:?} {:?}", samples, expected);
        prop_assert_eq!(samples.len(), expected.len());
        prop_assert!(samples.iter().zip(&expected).all(|(left, right)| same(left, right)), "{:?} {:?}", samples, expected);
    }

    #[test]
    fn well_formed_samples_come_back(
        labels in prop::collection::vec(("[a-z_]{1,5}", "[ -~é\n]{0,12}"), 0..4),
        value: f64,
        timestamp: Option<i64>,
    ) {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let inner: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", quote(value))).collect();
        let inner = inner.join(",") + if labels.is_empty() { "" } else { "," };
        let timestamp = timestamp.map_or(String::new(), |at| format!(" {at}"));
        let sample = one(&format!("vllm:x{{{inner}}} {value}{timestamp}\r\n"));
        prop_assert!(same(&sample, &("vllm:x".to_owned(), labels, value)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(page in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut samples = 0;
        let report = scan(&page, |sample| samples += usize::from(sample.labels.iter().count() < 300));
        prop_assert_eq!(report.samples, samples);
    }
}

#[test]
fn a_line_that_nobody_wants_is_passed_over_and_the_others_are_read_as_ever() {
    let page = b"a{x=\"1\"} 1\nb 2\nb{broken 3\nc 4\n";
    let mut seen = Vec::new();
    let report = scan_known(page, |name| (name == b"b").then_some(()), |(), sample| seen.push(sample.value));
    assert_eq!(seen, [2.0]);
    assert_eq!((report.samples, report.unreadable_lines), (1, 1));
}
