//! The text of an endpoint list: YAML in, endpoints or all faults out.

use std::fmt;

use crate::config::{self, read_endpoints};
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

impl From<config::Fault> for Fault {
    fn from(fault: config::Fault) -> Self {
        // Of `[3].weight` the line says the rest.
        let key = fault.key.split_once("].").map_or("", |(_, key)| key);
        let message = if key.is_empty() { fault.message } else { format!("{key}: {}", fault.message) };
        Self { line: fault.origin.line(), message }
    }
}

/// Reads a YAML list of endpoints. `[]` is a list of none; an empty text is a fault, because a file that is just
/// being written looks the same.
///
/// # Errors
/// The faults of the text, in the order of lines, so that a user mends them in one go.
pub fn parse_endpoints(text: &str) -> Result<Vec<EndpointSpec>, Vec<Fault>> {
    match read_endpoints(text) {
        Ok(endpoints) => Ok(endpoints.iter().map(EndpointSpec::from).collect()),
        Err(faults) => Err(faults.into_iter().map(Fault::from).collect()),
    }
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
    fn every_fault_of_a_flow_list_is_told_by_its_key() {
        let faults =
            parse_endpoints("[{address: 127.0.0.1:1, role: both},\n {address: nowhere, cost: x}]").unwrap_err();
        let told: Vec<_> = faults.iter().map(Fault::to_string).collect();
        assert!(
            told.len() == 2 && told[0].starts_with("line 2: address: ") && told[1].starts_with("line 2: cost: "),
            "{told:?}"
        );
    }

    /// 16,000 endpoints with eight attributes, more than two megabytes: within the caps on the file and on endpoints.
    #[test]
    fn a_list_as_large_as_its_caps_let_through_is_read() {
        let entry = |n: u32| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
            format!(
                "- {{ address: \"{address}:8000\", name: engine-{n}, models: [llama-3-8b], engine: vllm, weight: 2, cost: 1.5, \
                 tier: gold, region: eu-west }}\n"
            )
        };
        let text: String = (1..=16_000).map(entry).collect();
        assert!(text.len() > 2_200_000, "{}", text.len());
        assert_eq!(parse_endpoints(&text).unwrap().len(), 16_000);
    }

    #[test]
    fn what_all_endpoints_have_in_common_may_be_written_once() {
        let entry =
            |n: u32| format!("- {{ <<: *all, address: \"{}:80\" }}\n", std::net::Ipv4Addr::from(0x0a00_0000 + n));
        let first = "- &all { address: 127.0.0.1:1, tier: off, models: [1e3] }\n".to_owned();
        let endpoints = parse_endpoints(&(1..16_000).map(entry).fold(first, |text, entry| text + &entry)).unwrap();
        let last = endpoints.last().unwrap();
        assert_eq!((endpoints.len(), last.tier.as_deref(), &*last.models[0].name), (16_000, Some("off"), "1e3"));
    }

    #[test]
    fn more_values_than_there_may_be_are_refused_in_words() {
        let faults = parse_endpoints(&format!("[{}]", "1,".repeat(1 << 20))).unwrap_err();
        assert!(faults.len() == 1 && faults[0].message.ends_with("has more than 1,048,576 values"), "{faults:?}");
        let faults = parse_endpoints(&("[".repeat(100) + &"]".repeat(100))).unwrap_err();
        assert!(faults.len() == 1 && faults[0].message.ends_with("is nested too deep"), "{faults:?}");
    }

    #[test]
    fn many_faults_do_not_take_long() {
        let faults = parse_endpoints(&"- { adress: 127.0.0.1:1 }\n".repeat(10_000)).unwrap_err();
        assert_eq!(faults.len(), 100);
    }
}
