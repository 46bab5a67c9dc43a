//! Why a decision came out as it did, as JSON: for the admin pages, and short enough for a header.
//!
//! It says nothing of what the client wrote but the model and the headers that steer.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{EndpointId, Moment};
use crate::routing::{Plan, Record, ScoreRecord};
use crate::state::{Endpoint, Measured};

/// Longest value of the response header, in bytes.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Candidates described at most; a record of a thousand would be hundreds of kilobytes.
const CANDIDATES_MAX: usize = 64;
/// Longest text that a client has a say in, in characters.
const TEXT_CHARS_MAX: usize = 128;

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Left to Envoy: not ours to route.
    #[default]
    Passed,
    /// Sent to the endpoints chosen.
    Sent,
    /// The strategy waits before it decides.
    Waits,
    /// Answered by us.
    Answered,
}

/// One decision.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// As in the response header `request-id`.
    pub request_id: Box<str>,
    /// The model or adapter asked for.
    pub model: Box<str>,
    /// The pool that its route names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Box<str>>,
    /// Who decided.
    pub strategy: Arc<str>,
    /// Seed of the tie-breaking generator: the same state and seed give the same decision.
    pub seed: Box<str>,
    /// When, in milliseconds since the process began.
    pub at_ms: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Addresses chosen, best first.
    pub chosen: Vec<Box<str>>,
    /// What else there is to say, in order.
    pub notes: Vec<String>,
    /// Our answer, if we gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Endpoints that serve the model, the chosen ones first.
    pub candidates: Vec<Candidate>,
    /// Candidates that there was no room for.
    #[serde(skip_serializing_if = "is_none")]
    pub omitted: usize,
}

/// An answer of ours.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The word in the access log.
    pub reason: &'static str,
    /// JSON.
    pub body: Box<RawValue>,
}

/// One endpoint in a decision.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Candidate {
    /// `ip:port`.
    pub address: Box<str>,
    /// What left it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<&'static str>,
    /// Requests that we had there.
    pub in_flight: u32,
    /// Age of the engine's numbers in milliseconds; absent before the first reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_age_ms: Option<u64>,
    /// The numbers put on it.
    pub scores: Vec<ScoreLine>,
    /// What we saw of its answers; left out of the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredLine>,
}

/// What we saw of an endpoint's answers over the last minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredLine {
    /// Requests answered with a status below 500.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens of prompts: as estimated, until the engine reported them.
    pub prompt_tokens: u64,
    /// Tokens of answers: as the engine reported, as they passed, or as they were expected.
    pub output_tokens: u64,
    /// Mean time to the first token, in milliseconds; `null` where none was seen.
    pub first_token_mean_ms: Option<f64>,
    /// The 95th percentile of it.
    pub first_token_p95_ms: Option<f64>,
}

/// One scorer's number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreLine {
    /// The scorer's name.
    pub scorer: &'static str,
    /// The number; `null` for one without end.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// False where an input was missing and the scorer used its substitute.
    pub complete: bool,
    /// What it contributed where several scorers are added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(omitted: &usize) -> bool {
    *omitted == 0
}

impl From<&ScoreRecord> for ScoreLine {
    fn from(record: &ScoreRecord) -> Self {
        let (scorer, unit, share) = (record.scorer, record.unit, record.share);
        Self { scorer, value: record.score.value, unit, complete: record.score.complete, share }
    }
}

impl Explanation {
    /// Text that a client has a say in, shortened.
    pub(super) fn shortened(text: &str) -> Box<str> {
        match text.char_indices().nth(TEXT_CHARS_MAX) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
            None => text.into(),
        }
    }

    /// Adds who was chosen among whom, and why.
    pub(super) fn describe(&mut self, plan: Option<&Plan>, endpoints: &[Arc<Endpoint>], record: &Record, now: Moment) {
        let chosen = plan.map_or(&[][..], Plan::endpoints);
        let others = endpoints.iter().filter(|endpoint| chosen.iter().all(|chosen| chosen.id != endpoint.id));
        let shown: Vec<_> = chosen.iter().chain(others).take(CANDIDATES_MAX).collect();
        let mut places: HashMap<EndpointId, usize> = shown.iter().enumerate().map(|(at, e)| (e.id, at)).collect();
        self.chosen = chosen.iter().map(|endpoint| endpoint.address_text().into()).collect();
        self.omitted = (chosen.len() + endpoints.len()).saturating_sub(shown.len());
        self.omitted -= self.omitted.min(endpoints.iter().filter(|e| chosen.iter().any(|c| c.id == e.id)).count());
        self.candidates = shown.into_iter().map(|endpoint| candidate(endpoint, now)).collect();
        for score in &record.scores {
            if let Some(candidate) = places.get(&score.endpoint).and_then(|at| self.candidates.get_mut(*at)) {
                candidate.scores.push(score.into());
            }
        }
        for (id, by) in &record.left_out {
            // The first that left it out is the reason.
            if let Some(candidate) = places.remove(id).and_then(|at| self.candidates.get_mut(at)) {
                candidate.left_out = Some(by);
            }
        }
        self.notes.clone_from(&record.notes);
    }

    /// One line of JSON in visible ASCII, of at most [`HEADER_BYTES_MAX`] bytes: candidates that do not fit are counted
    /// in `omitted`, and where not even the rest fits, the notes are left out as well.
    pub fn to_header(&self) -> String {
        for notes in [&self.notes[..], &[]] {
            let head = Self { candidates: Vec::new(), omitted: usize::MAX, notes: notes.to_vec(), ..self.clone() };
            // A place holder as long as any number keeps room for it.
            let mut room = HEADER_BYTES_MAX.saturating_sub(ascii(&head).len());
            let mut candidates = Vec::new();
            for candidate in &self.candidates {
                let candidate = Candidate { measured: None, ..candidate.clone() };
                let length = ascii(&candidate).len() + 1;
                if length > room {
                    break;
                }
                room -= length;
                candidates.push(candidate);
            }
            if room > 0 {
                let omitted = self.omitted + self.candidates.len() - candidates.len();
                return ascii(&Self { candidates, omitted, ..head });
            }
        }
        "{}".to_owned()
    }
}

fn candidate(endpoint: &Endpoint, now: Moment) -> Candidate {
    let age = endpoint.live.signals.age(now);
    Candidate {
        address: endpoint.address_text().into(),
        left_out: None,
        in_flight: endpoint.live.ours.in_flight(),
        data_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        scores: Vec::new(),
        measured: Some(measured(&endpoint.live.measured, now)),
    }
}

fn measured(measured: &Measured, now: Moment) -> MeasuredLine {
    let outcomes = measured.outcomes(now);
    let millis = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
    MeasuredLine {
        answered: outcomes.answered,
        failed: outcomes.failed,
        prompt_tokens: outcomes.prompt_tokens,
        output_tokens: outcomes.output_tokens,
        first_token_mean_ms: millis(measured.ttft_mean(now)),
        first_token_p95_ms: millis(measured.ttft_quantile(0.95, now)),
    }
}

/// JSON in which everything but visible ASCII is escaped; all of it stands within strings.
fn ascii(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 32);
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a `String` cannot fail.
                write!(out, "\\u{unit:04x}").ok();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::Value;

    use crate::domain::EndpointSpec;
    use crate::routing::Score;

    use super::*;

    fn fleet(count: u16) -> Vec<Arc<Endpoint>> {
        let endpoint = |n: u16| {
            let spec = EndpointSpec::at(SocketAddr::from(([127, 0, 0, 1], n)));
            Arc::new(Endpoint::new(EndpointId { slot: u32::from(n), generation: 0 }, spec, Arc::default()))
        };
        (1..=count).map(endpoint).collect()
    }

    fn explained(count: u16) -> Explanation {
        let endpoints = fleet(count);
        let score = |endpoint: &Arc<Endpoint>| ScoreRecord {
            endpoint: endpoint.id,
            scorer: "open-requests",
            unit: "requests per weight",
            score: Score { value: 1.5, complete: false },
            share: None,
        };
        let record = Record {
            left_out: vec![(endpoints[1].id, "not-aside"), (endpoints[1].id, "later")],
            scores: endpoints.iter().map(score).collect(),
            notes: vec!["a note".to_owned()],
        };
        let mut explanation = Explanation { model: "m\u{e4}\u{1f600}".into(), ..Explanation::default() };
        explanation.describe(None, &endpoints, &record, Moment::EPOCH);
        explanation
    }

    #[test]
    fn candidates_come_with_their_scores_and_the_first_reason_for_leaving_them_out() {
        let explanation = explained(3);
        let left_out: Vec<_> = explanation.candidates.iter().map(|candidate| candidate.left_out).collect();
        assert_eq!(left_out, [None, Some("not-aside"), None]);
        assert_eq!(explanation.candidates[2].scores[0].unit, "requests per weight");
        assert_eq!(explanation.omitted, 0);
    }

    #[test]
    fn the_header_is_bounded_ascii_and_still_json() {
        for count in [2, 20, 64, 1000] {
            let header = explained(count).to_header();
            assert!(header.len() <= HEADER_BYTES_MAX && header.bytes().all(|b| (b' '..=b'~').contains(&b)), "{header}");
            let value: Value = serde_json::from_str(&header).unwrap();
            assert_eq!(value["model"], "m\u{e4}\u{1f600}");
            let shown = value["candidates"].as_array().unwrap().len();
            assert_eq!(shown + value["omitted"].as_u64().unwrap_or(0) as usize, usize::from(count));
        }
    }

    #[test]
    fn endless_notes_leave_the_header_whole() {
        let explanation = Explanation { notes: vec!["x".repeat(10_000)], ..explained(3) };
        let value: Value = serde_json::from_str(&explanation.to_header()).unwrap();
        assert_eq!((value["notes"].as_array().unwrap().len(), value["candidates"].as_array().unwrap().len()), (0, 3));
    }
}
