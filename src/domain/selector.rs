//! Label selectors as Kubernetes writes them: `tier=gold,zone in (a, b),!spot`.
//!
//! The grammar is that of `labels.Parse` in `k8s.io/apimachinery`: `key`, `!key`, `key=value`, `key==value`,
//! `key!=value`, `key in (…)`, `key notin (…)`, `key>number`, `key<number`, joined by commas, all of which must hold.

use std::collections::BTreeMap;

/// Longest selector that is read, in bytes.
const BYTES_MAX: usize = 4096;
/// Most requirements and listed values together: each may be compared with the labels of every endpoint.
const PARTS_MAX: usize = 64;
/// Longest name or value, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Longest prefix of a key, in bytes.
const PREFIX_BYTES_MAX: usize = 253;

/// What labels must be like. An empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: Box<str>,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Present,
    Absent,
    /// One of these.
    In(Vec<Box<str>>),
    /// None of these, or absent.
    NotIn(Vec<Box<str>>),
    Above(i64),
    Below(i64),
}

/// Why a selector cannot be read; the position is in bytes from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// More than 4 KiB.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// More than 64 requirements and listed values.
    #[error("it has more than {PARTS_MAX} requirements and values")]
    TooMany,
    /// Something else was due.
    #[error("{expected} expected at byte {at}")]
    Expected {
        /// What was due.
        expected: &'static str,
        /// Where.
        at: usize,
    },
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// If it does not follow the grammar, or a key or a value is no Kubernetes label.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > BYTES_MAX {
            return Err(SelectorError::TooLong);
        }
        let mut reader = Reader { text, at: 0, parts: 0 };
        let mut requirements = Vec::new();
        if reader.peek().is_none() {
            return Ok(Self(requirements));
        }
        loop {
            requirements.push(reader.requirement()?);
            match reader.peek() {
                None => return Ok(Self(requirements)),
                Some(b',') => reader.at += 1,
                Some(_) => return Err(reader.expected("\",\" or the end")),
            }
        }
    }

    /// Whether these labels are as asked.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels.get(&*requirement.key).map(String::as_str)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |values: &[Box<str>]| value.is_some_and(|value| values.iter().any(|known| **known == *value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Present => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => among(values),
            Test::NotIn(values) => !among(values),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Requirements and listed values so far.
    parts: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no blank, which is then where we are.
    fn peek(&mut self) -> Option<u8> {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.rest().bytes().next()
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.peek();
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    /// Counts a requirement or a listed value.
    fn count(&mut self) -> Result<(), SelectorError> {
        self.parts += 1;
        if self.parts > PARTS_MAX { Err(SelectorError::TooMany) } else { Ok(()) }
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Expected { expected, at: self.at }
    }

    /// The run of characters that a label may have; empty perhaps.
    fn word(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let word = rest.split_once(|c| !is_part(c)).map_or(rest, |(word, _)| word);
        self.at += word.len();
        word
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        self.count()?;
        let is_negated = self.takes("!");
        let key = self.key()?;
        let test = if is_negated { Test::Absent } else { self.test()? };
        Ok(Requirement { key: key.into(), test })
    }

    fn test(&mut self) -> Result<Test, SelectorError> {
        if matches!(self.peek(), None | Some(b',')) {
            return Ok(Test::Present);
        }
        if self.takes("==") || self.takes("=") {
            return Ok(Test::In(vec![self.value()?.into()]));
        }
        if self.takes("!=") {
            return Ok(Test::NotIn(vec![self.value()?.into()]));
        }
        if self.takes(">") {
            return Ok(Test::Above(self.number()?));
        }
        if self.takes("<") {
            return Ok(Test::Below(self.number()?));
        }
        let before = self.at;
        match self.word() {
            "in" => Ok(Test::In(self.values()?)),
            "notin" => Ok(Test::NotIn(self.values()?)),
            _ => {
                self.at = before;
                Err(self.expected("\"=\", \"==\", \"!=\", \"in\", \"notin\", \">\", \"<\" or \",\""))
            }
        }
    }

    fn key(&mut self) -> Result<&'a str, SelectorError> {
        self.peek();
        let before = self.at;
        let key = self.word();
        let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let is_prefix = |prefix: &str| {
            !prefix.is_empty() && prefix.len() <= PREFIX_BYTES_MAX && !prefix.contains(['/', '_']) && is_framed(prefix)
        };
        if !name.is_empty() && is_value(name) && prefix.is_none_or(is_prefix) {
            return Ok(key);
        }
        self.at = before;
        Err(self.expected("a label's key"))
    }

    /// A value, which may be empty.
    fn value(&mut self) -> Result<&'a str, SelectorError> {
        self.peek();
        let before = self.at;
        let value = self.word();
        if is_value(value) {
            return Ok(value);
        }
        self.at = before;
        Err(self.expected("a label's value"))
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let before = self.at;
        let number = self.word().parse();
        number.map_err(|_| SelectorError::Expected { expected: "a whole number", at: before })
    }

    fn values(&mut self) -> Result<Vec<Box<str>>, SelectorError> {
        if !self.takes("(") {
            return Err(self.expected("\"(\""));
        }
        let mut values = Vec::new();
        loop {
            self.count()?;
            values.push(self.value()?.into());
            if self.takes(")") {
                return Ok(values);
            }
            if !self.takes(",") {
                return Err(self.expected("\",\" or \")\""));
            }
        }
    }
}

fn is_value(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.contains('/') && (text.is_empty() || is_framed(text))
}

/// Begins and ends with a letter or a digit.
fn is_framed(text: &str) -> bool {
    let is_plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_plain(text.as_bytes().first()) && is_plain(text.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("tier", "gold"), ("zone", "a"), ("app.example/size", "8"), ("bare", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn every_form_matches_as_kubernetes_has_it() {
        for (text, expected) in [
            ("", true),
            ("tier=gold", true),
            ("tier == gold , zone!=b", true),
            ("tier=silver", false),
            ("zone in (a, b)", true),
            ("zone in (b,)", false),
            ("bare in (,x)", true),
            ("zone notin (a,b)", false),
            ("absent notin (a)", true),
            ("absent!=a", true),
            ("absent=", false),
            ("bare=", true),
            ("tier", true),
            ("absent", false),
            ("!absent", true),
            ("! tier", false),
            ("app.example/size>7,app.example/size<9", true),
            ("app.example/size<8", false),
            ("tier>1", false),
            ("in in (in),notin", false),
        ] {
            assert_eq!(Selector::parse(text).map(|selector| selector.matches(&labels())), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        for (text, at) in [
            (",", 0),
            ("a,", 2),
            ("a=b,,c", 4),
            ("=a", 0),
            ("a b", 2),
            ("a in b", 5),
            ("a in (b", 7),
            ("a in b)", 5),
            ("a=-b", 2),
            ("a=b/c", 2),
            ("-a", 0),
            ("a/b/c", 0),
            ("/a", 0),
            ("a>x", 2),
            ("!", 1),
            ("!a=b", 2),
            ("a=b)", 3),
            ("ä=b", 0),
        ] {
            let found = Selector::parse(text);
            assert!(
                matches!(found, Err(SelectorError::Expected { at: found, .. }) if found == at),
                "{text}: {found:?}"
            );
        }
        assert_eq!(Selector::parse(&"a".repeat(BYTES_MAX + 1)), Err(SelectorError::TooLong));
        assert!(Selector::parse(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn what_would_be_compared_without_end_is_refused() {
        let (absent, listed) = (vec!["!absent"; PARTS_MAX].join(","), vec!["a"; PARTS_MAX - 1].join(","));
        assert!(Selector::parse(&absent).is_ok());
        assert_eq!(Selector::parse(&format!("{absent},!absent")), Err(SelectorError::TooMany));
        assert!(Selector::parse(&format!("zone in ({listed})")).is_ok());
        assert_eq!(Selector::parse(&format!("zone in ({listed},b)")), Err(SelectorError::TooMany));
    }

    fn requirement() -> impl Strategy<Value = (String, Requirement)> {
        let tests = prop_oneof![
            Just(Test::Present),
            Just(Test::Absent),
            prop::collection::vec("[a-z0-9]{0,3}", 1..4)
                .prop_map(|v| Test::In(v.into_iter().map(Into::into).collect())),
            prop::collection::vec("[a-z0-9]{0,3}", 1..4)
                .prop_map(|v| Test::NotIn(v.into_iter().map(Into::into).collect())),
            any::<i32>().prop_map(|n| Test::Above(n.unsigned_abs().into())),
            any::<i32>().prop_map(|n| Test::Below(n.unsigned_abs().into())),
        ];
        ("[a-z]{1,2}(/[a-z]([a-z.-]{0,3}[a-z])?)?", tests).prop_map(|(key, test)| {
            let text = match &test {
                Test::Present => key.clone(),
                Test::Absent => format!("!{key}"),
                Test::In(values) => format!("{key} in ({})", values.join(",")),
                Test::NotIn(values) => format!("{key} notin ( {} )", values.join(" , ")),
                Test::Above(bound) => format!("{key}>{bound}"),
                Test::Below(bound) => format!("{key} < {bound}"),
            };
            (text, Requirement { key: key.into(), test })
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::collection::vec(requirement(), 0..5)) {
            let text = parts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(",");
            let expected = Selector(parts.into_iter().map(|(_, requirement)| requirement).collect());
            prop_assert_eq!(Selector::parse(&text), Ok(expected));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-c!=<>(), \\-/é]{0,24}") {
            drop(Selector::parse(&text));
        }

        #[test]
        fn a_requirement_and_its_negation_never_agree(key in "[a-z]{1,4}", value in "[a-z]{0,3}") {
            for (one, other) in [("=", "!="), (" in (", " notin (")] {
                let end = if one == "=" { "" } else { ")" };
                let matches = |sign: &str| Selector::parse(&format!("{key}{sign}{value}{end}")).unwrap().matches(&labels());
                prop_assert_ne!(matches(one), matches(other));
            }
        }
    }
}
