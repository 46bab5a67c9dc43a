//! The text that names a strategy, or several with their weights: `name[:weight][,name[:weight]]...` (AIBrix).

use std::fmt::Write;

use smallvec::SmallVec;

/// Longest text, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 512;
/// Largest weight.
pub(super) const WEIGHT_MAX: u32 = 1_000_000;

/// What a text names. Names are not looked up here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// One strategy.
    One(&'a str),
    /// Several, each once and with a weight above 0, in the order of their first appearance.
    Several(SmallVec<[(&'a str, u64); 4]>),
}

/// What is wrong with such a text; `item` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The text is too long.
    #[error("the text has {bytes} bytes, at most {TEXT_BYTES_MAX} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nothing between two commas, before the first or after the last.
    #[error("item {item} is empty")]
    EmptyItem {
        /// Which one.
        item: usize,
    },
    /// A weight without a name.
    #[error("item {item} (\"{text}\") has no name")]
    NoName {
        /// Which one.
        item: usize,
        /// As written.
        text: String,
    },
    /// More than one colon.
    #[error("item {item} (\"{text}\") has more than one colon; write name:weight")]
    TwoColons {
        /// Which one.
        item: usize,
        /// As written.
        text: String,
    },
    /// Not a whole number in range.
    #[error("item {item} (\"{text}\") has the weight \"{weight}\"; it must be a whole number, 0 to {WEIGHT_MAX}")]
    BadWeight {
        /// Which one.
        item: usize,
        /// As written.
        text: String,
        /// Its weight as written.
        weight: String,
    },
    /// Nothing is left.
    #[error("every weight is 0; at least one must be above")]
    AllZero,
}

/// Reads a text. Blanks around parts are trimmed, a missing weight is 1, an item of weight 0 is dropped, a name that is
/// repeated counts with the sum of its weights, and a name that is exclusive (`pd`, `slo`, `slo-…`) stands for the whole.
///
/// # Errors
/// [`GrammarError`]: what is wrong, and where.
pub(super) fn parse(text: &str) -> Result<Named<'_>, GrammarError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(GrammarError::TooLong { bytes: text.len() });
    }
    let mut items: SmallVec<[(&str, u64); 4]> = SmallVec::new();
    for (item, written) in (1..).zip(text.split(',')) {
        let (name, weight) = parse_item(item, written.trim())?;
        if weight == 0 {
            continue;
        }
        match items.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += u64::from(weight),
            None => items.push((name, u64::from(weight))),
        }
    }
    if let Some((name, _)) = items.iter().find(|(name, _)| is_exclusive(name)) {
        return Ok(Named::One(name));
    }
    match items.as_slice() {
        [] => Err(GrammarError::AllZero),
        [(only, _)] => Ok(Named::One(only)),
        _ => Ok(Named::Several(items)),
    }
}

fn parse_item(item: usize, written: &str) -> Result<(&str, u32), GrammarError> {
    let text = || written.to_owned();
    if written.is_empty() {
        return Err(GrammarError::EmptyItem { item });
    }
    let Some((name, weight)) = written.split_once(':') else { return Ok((written, 1)) };
    let (name, weight) = (name.trim(), weight.trim());
    if weight.contains(':') {
        return Err(GrammarError::TwoColons { item, text: text() });
    }
    if name.is_empty() {
        return Err(GrammarError::NoName { item, text: text() });
    }
    match weight.parse::<u32>() {
        Ok(number) if number <= WEIGHT_MAX => Ok((name, number)),
        _ => Err(GrammarError::BadWeight { item, text: text(), weight: weight.to_owned() }),
    }
}

/// Whether a strategy does not go together with others: it takes the place of all of them.
pub(super) fn is_exclusive(name: &str) -> bool {
    matches!(name, "pd" | "slo") || name.starts_with("slo-")
}

/// The one way to write what `items` name.
pub(super) fn canonical<'a>(items: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut text = String::new();
    for (name, weight) in items {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a `String` cannot fail.
        write!(text, "{comma}{name}:{weight}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn several(text: &str) -> Vec<(&str, u64)> {
        match parse(text) {
            Ok(Named::Several(items)) => items.to_vec(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn weights_default_to_one_and_blanks_do_not_count() {
        assert_eq!(several("a:3, b"), [("a", 3), ("b", 1)]);
        assert_eq!(several("  a : 3 ,b: 1 "), [("a", 3), ("b", 1)]);
        assert_eq!(several("a:1000000,b"), [("a", 1_000_000), ("b", 1)]);
    }

    #[test]
    fn a_repeated_name_counts_twice_and_a_zero_drops_its_item() {
        assert_eq!(several("a,b,a:2"), [("a", 3), ("b", 1)]);
        assert_eq!(parse("a:0,b:7"), Ok(Named::One("b")));
        assert_eq!(parse("a:5"), Ok(Named::One("a")));
        assert_eq!(parse("a,a"), Ok(Named::One("a")));
    }

    #[test]
    fn an_exclusive_name_takes_the_place_of_all_unless_its_weight_is_zero() {
        assert_eq!(parse("random,pd,slo"), Ok(Named::One("pd")));
        assert_eq!(parse("a,slo-pack-load:3"), Ok(Named::One("slo-pack-load")));
        assert_eq!(parse("pd:0,a"), Ok(Named::One("a")));
        assert_eq!(several("slow-lane:1,a:5"), [("slow-lane", 1), ("a", 5)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, message) in [
            ("", "item 1 is empty"),
            ("a,,b", "item 2 is empty"),
            ("a,", "item 2 is empty"),
            ("a:1:2", "item 1 (\"a:1:2\") has more than one colon"),
            ("b,:3", "item 2 (\":3\") has no name"),
            ("a:1.5", "has the weight \"1.5\""),
            ("a:-1", "has the weight \"-1\""),
            ("a:", "has the weight \"\""),
            ("a:1000001", "has the weight \"1000001\""),
            ("a:99999999999999999999", "0 to 1000000"),
            ("a:0,b:0", "every weight is 0"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(matches!(parse(&"a,".repeat(300)), Err(GrammarError::TooLong { bytes: 600 })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,600}") {
            drop(parse(&text));
        }

        #[test]
        fn what_was_read_is_read_the_same_from_its_canonical_form(
            items in prop::collection::vec(("[a-z]{1,3}", prop::option::of(0u32..=WEIGHT_MAX)), 1..8)
        ) {
            let written: Vec<_> = items
                .iter()
                .map(|(name, weight)| weight.map_or_else(|| name.clone(), |weight| format!(" {name} : {weight}")))
                .collect();
            let text = written.join(",");
            if let Ok(Named::Several(read)) = parse(&text) {
                let canonical = canonical(read.iter().copied());
                let total: u64 = items.iter().map(|(_, weight)| u64::from(weight.unwrap_or(1))).sum();
                prop_assert_eq!(read.iter().map(|(_, weight)| weight).sum::<u64>(), total);
                prop_assert!(canonical.len() <= 2 * TEXT_BYTES_MAX);
                if read.iter().all(|(_, weight)| *weight <= u64::from(WEIGHT_MAX)) {
                    prop_assert_eq!(format!("{:?}", parse(&canonical)), format!("Ok(Several({read:?}))"));
                }
            }
        }
    }
}
