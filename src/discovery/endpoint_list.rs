//! The text of an endpoint list: YAML in, endpoints or all faults out.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _, Spanned};

use crate::config::{EndpointConfig, check_endpoints};
use crate::domain::EndpointSpec;

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, counted from 1, where it is known.
    pub line: Option<u64>,
    /// What is wrong; lower case, no full stop.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Reads a YAML list of endpoints. `[]` is a list of none; an empty text is a fault, because a file that is just
/// being written looks the same.
///
/// # Errors
/// All faults of the text, in the order of lines, so that a user mends them in one go.
pub fn parse_endpoints(text: &str) -> Result<Vec<EndpointSpec>, Vec<Fault>> {
    let (entries, mut faults) = match read::<Vec<Spanned<EndpointConfig>>>(text) {
        Ok(None) => {
            let message = "the file is empty; write \"[]\" for no endpoints".to_owned();
            return Err(vec![Fault { line: None, message }]);
        }
        Ok(Some(entries)) => {
            (entries.into_iter().map(|entry| (entry.referenced.line(), entry.value)).collect(), vec![])
        }
        Err(fault) => read_entries(text, fault),
    };
    let (lines, endpoints): (Vec<u64>, Vec<EndpointConfig>) = entries.into_iter().unzip();
    faults.extend(
        check_endpoints(&endpoints)
            .into_iter()
            .map(|(index, message)| Fault { line: lines.get(index).copied().filter(|line| *line > 0), message }),
    );
    if faults.is_empty() {
        return Ok(endpoints.iter().map(EndpointSpec::from).collect());
    }
    faults.sort_by_key(|fault| fault.line);
    Err(faults)
}

type Entries = Vec<(u64, EndpointConfig)>;

/// The reader stops at the first entry of a wrong shape. To tell of the others too, each entry of a list in block
/// style is read for itself. `first` stands alone where that does not work out.
fn read_entries(text: &str, first: Fault) -> (Entries, Vec<Fault>) {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    for (line, chunk) in block_entries(text) {
        match read::<Vec<EndpointConfig>>(chunk) {
            Ok(read) => entries.extend(read.into_iter().flatten().map(|entry| (line, entry))),
            Err(fault) => faults.push(Fault { line: fault.line.map(|at| at + line - 1), ..fault }),
        }
    }
    if faults.contains(&first) { (entries, faults) } else { (Vec::new(), vec![first]) }
}

/// Splits where a line begins with `-`, at the indentation of the first such line; each piece with its line number.
fn block_entries(text: &str) -> Vec<(u64, &str)> {
    let (mut starts, mut offset, mut indent) = (Vec::new(), 0, None);
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        let bare = content.trim_start_matches(' ');
        let depth = content.len() - bare.len();
        if bare.starts_with("- ") && *indent.get_or_insert(depth) == depth {
            starts.push((line, offset));
        }
        offset += content.len();
    }
    let ends = starts.iter().skip(1).map(|(_, start)| *start).chain([text.len()]).collect::<Vec<_>>();
    starts.iter().zip(ends).filter_map(|((line, start), end)| Some((*line, text.get(*start..end)?))).collect()
}

/// `None` is an empty document.
fn read<T: DeserializeOwned>(text: &str) -> Result<Option<T>, Fault> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
        Fault { line, message: DefaultMessageFormatter.format_message(error).escape_debug().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_list_is_read_with_its_defaults() {
        let text = "- address: 127.0.0.1:8001\n  models: [a, { name: b, adapters: [c] }]\n- { address: '[::1]:8002', engine: none }\n";
        let endpoints = parse_endpoints(text).unwrap();
        assert_eq!(endpoints.len(), 2);
        assert_eq!(endpoints[0].models[1].adapters, ["c"]);
        assert_eq!((endpoints[1].weight, endpoints[1].name.as_str()), (1, "[::1]:8002"));
    }

    #[test]
    fn nothing_is_not_an_empty_list() {
        assert_eq!(parse_endpoints("[]"), Ok(vec![]));
        for text in ["", "\n", "# a comment\n"] {
            assert_eq!(parse_endpoints(text).unwrap_err().len(), 1, "{text:?}");
        }
    }

    #[test]
    fn every_fault_has_its_line() {
        let text = "\
# engines
- address: localhost:8001
- address: 127.0.0.1:8002
  wieght: 3
- address: 127.0.0.1:8003
  weight: 0
- address: 127.0.0.1:8003
";
        let faults = parse_endpoints(text).unwrap_err();
        let lines: Vec<_> = faults.iter().filter_map(|fault| fault.line).collect();
        assert_eq!(lines, [2, 4, 5, 7], "{faults:#?}");
    }

    #[test]
    fn a_text_that_is_not_a_list_of_endpoints_is_refused() {
        for text in ["a: b", "- [", "- 3", "x", "- address: 127.0.0.1:1\n---\n- address: 127.0.0.1:2", "\0"] {
            assert!(!parse_endpoints(text).unwrap_err().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_flow_list_tells_its_first_fault() {
        let faults = parse_endpoints("[{address: 127.0.0.1:1}, {address: nowhere}]").unwrap_err();
        assert_eq!((faults.len(), faults[0].line), (1, Some(1)));
    }
}
