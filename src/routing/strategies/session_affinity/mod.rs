//! Sessions stay where they are.
//!
//! A client that sends back the id which it was given goes to the endpoint that the id names; one that sends a key of
//! its own goes where the key ranks first. The gateway keeps nothing, so that replicas agree without talking.

mod rendezvous;
mod sources;
mod token;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::Deserialize;
use tracing::warn;

use crate::domain::{EndpointId, GaugeSet};
use crate::files::read_regular;
use crate::routing::{
    About, BuildError, Built, Candidates, OpenRequests, Parameter, Parameters, Pass, Prefer, Registration, RequestView,
    ResponseHeaders, Score, Scored, Scorer, Scores, Trace,
};
use crate::state::Endpoint;

use super::settings::at_least;
use rendezvous::{Bound, Loads};
use sources::Source;
use token::{Signer, plain_address};

pub(super) const REGISTRATION: Registration = Registration {
    name: "session-affinity",
    aliases: &[("session", "the vLLM production stack; its `--session-key` is `keys: [header:NAME]`")],
    summary: "the endpoint that served the session before, unless it is gone or overloaded",
    about: About {
        purpose: "Conversations: the next turn finds its beginning in the engine's prefix cache.",
        formula: "1 for the session's home, 0 for the others, most first. Where the home is gone or overloaded all are \
                  alike, so that the fewest open requests decide, or the others of a combination; so they do for a new \
                  session, unless the strategy has a `fallback`. Home is the endpoint that the header \
                  `x-session-id` names. Else, for a session key, the one that ranks first for it (weighted rendezvous \
                  hashing), which moves 1/n of the sessions when one of n endpoints comes or goes. An endpoint with \
                  more than `bound` times the mean of open requests per weight, and `slack` at least, is nobody's \
                  home. The answer's `x-session-id` names the endpoint that served, whoever decided that: signed, and \
                  without its address.",
        missing: "An id that is forged, or names an endpoint that is gone, not ready or overloaded, is replaced by a \
                  new one. Without a fresh reading of the engine, our own requests alone are the load.",
        source: "AIBrix `session-affinity`; bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018.",
    },
    parameters: &[
        Parameter {
            name: "key",
            default: "none",
            about: "Secret that ids are signed with, 16 bytes at least. `fairlead check` and `/api/config` show it, \
                    which a file's content they do not.",
        },
        Parameter {
            name: "key_file",
            default: "routing.session_key_file",
            about: "File that holds the secret, without spaces or line ends around it. All replicas need the same; \
                    without any, a random one is made, and ids are good for this process only.",
        },
        Parameter {
            name: "keys",
            default: "[header:x-aibrix-session-key, body:session_id, body:prompt_cache_key]",
            about: "Where a session key may be, in order: `header:NAME`, `cookie:NAME`, `body:user`, \
                    `body:session_id`, `body:prompt_cache_key`. A key has 1 to 256 bytes.",
        },
        Parameter {
            name: "accept_addresses",
            default: "true",
            about: "Whether an id of AIBrix, the base64 of an address, is accepted if it is a candidate's.",
        },
        Parameter { name: "bound", default: "1.25", about: "Load above which to pass over, relative to the mean." },
        Parameter {
            name: "slack",
            default: "4",
            about: "Open requests per unit of weight below which no endpoint is overloaded.",
        },
    ],
    build: |parameters| Ok(Built::Scored(Scored::new(SessionAffinity::build(parameters)?))),
};

/// The header that carries session ids, both ways.
const ID_HEADER: &str = "x-session-id";
/// Largest file of a secret, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Least bytes of a secret.
const KEY_BYTES_MIN: usize = 16;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    key: Option<String>,
    key_file: Option<PathBuf>,
    keys: Vec<String>,
    accept_addresses: bool,
    bound: f64,
    slack: f64,
}

impl Default for Settings {
    fn default() -> Self {
        let keys = ["header:x-aibrix-session-key", "body:session_id", "body:prompt_cache_key"];
        let keys = keys.map(str::to_owned).into();
        Self { key: None, key_file: None, keys, accept_addresses: true, bound: 1.25, slack: 4.0 }
    }
}

/// Whether ids of addresses are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    Accepted,
    Refused,
}

#[derive(Debug)]
struct SessionAffinity {
    signer: Signer,
    /// The key was made up by this process, and nobody was told yet.
    owes_warning: AtomicBool,
    sources: Vec<Source>,
    addresses: Addresses,
    bound: Bound,
}

/// Who an id names.
enum Named {
    Identity(u64),
    Address(SocketAddr),
}

impl SessionAffinity {
    fn build(parameters: &Parameters) -> Result<Self, BuildError> {
        let settings: Settings = parameters.read()?;
        let key = secret(&settings, parameters.session_key_file())?;
        at_least("bound", settings.bound, 1.0)?;
        at_least("slack", settings.slack, 0.0)?;
        Ok(Self {
            signer: key.as_deref().map_or_else(Signer::random, Signer::new),
            owes_warning: AtomicBool::new(key.is_none()),
            sources: settings.keys.iter().map(|text| Source::parse(text)).collect::<Result<_, _>>()?,
            addresses: if settings.accept_addresses { Addresses::Accepted } else { Addresses::Refused },
            bound: Bound { factor: settings.bound, slack: settings.slack },
        })
    }

    /// Who the client's id names; `None` if it sent none that is good.
    fn named(&self, request: &RequestView<'_>) -> Option<Named> {
        let id = request.asked.headers.get(ID_HEADER)?;
        if let Some(identity) = self.signer.verify(id) {
            return Some(Named::Identity(identity));
        }
        (self.addresses == Addresses::Accepted).then(|| plain_address(id)).flatten().map(Named::Address)
    }

    /// The key that the client gives its session.
    fn key<'a>(&self, request: &RequestView<'a>) -> Option<&'a str> {
        self.sources.iter().find_map(|source| source.key(request.asked))
    }

    fn is(&self, named: &Named, endpoint: &Endpoint) -> bool {
        match named {
            Named::Identity(identity) => self.signer.identity(endpoint) == *identity,
            Named::Address(address) => endpoint.spec.address == *address,
        }
    }

    /// Where a session belongs that has an id or a key: that endpoint, if it is there and not overloaded.
    fn home(
        &self,
        session: (Option<Named>, Option<&str>),
        request: &RequestView<'_>,
        candidates: Candidates<'_>,
        trace: &mut Trace,
    ) -> Option<EndpointId> {
        let (named, key) = session;
        let loads = Loads::of(request, candidates, self.bound);
        if let Some(named) = named {
            match candidates.iter().position(|endpoint| self.is(&named, endpoint)) {
                Some(position) if !loads.is_overloaded(position) => {
                    trace.note(|| "the session's id names its home".into());
                    return Some(candidates.at(position).id);
                }
                Some(_) => trace.note(|| "the session's endpoint is overloaded".into()),
                None => trace.note(|| "the session's endpoint is gone or not ready".into()),
            }
        }
        let (endpoint, is_first) = loads.ranked(key?.as_bytes());
        trace.note(|| {
            let overloaded = "those that the session's key ranks higher than its home are overloaded";
            if is_first { "the session's key ranks its home first" } else { overloaded }.into()
        });
        Some(endpoint.id)
    }
}

/// The strategy's own secret, else the one that all share.
fn secret(settings: &Settings, shared: Option<&Path>) -> Result<Option<Vec<u8>>, BuildError> {
    let file = settings.key_file.as_deref().or(shared.filter(|_| settings.key.is_none()));
    let key = match (&settings.key, file) {
        (Some(_), Some(_)) => return Err(BuildError("\"key\" and \"key_file\" exclude each other".into())),
        (Some(key), None) => key.clone().into_bytes(),
        (None, Some(path)) => read_regular(path, KEY_FILE_BYTES_MAX)
            .map(|bytes| bytes.trim_ascii().to_owned())
            .map_err(|error| BuildError(format!("the key file \"{}\": {error}", path.display())))?,
        (None, None) => return Ok(None),
    };
    if key.len() < KEY_BYTES_MIN {
        return Err(BuildError(format!("the key has {} bytes; it needs {KEY_BYTES_MIN} at least", key.len())));
    }
    Ok(Some(key))
}

impl Scorer for SessionAffinity {
    fn name(&self) -> &'static str {
        "session"
    }

    fn unit(&self) -> &'static str {
        "home, 0 or 1"
    }

    fn prefers(&self) -> Prefer {
        Prefer::Higher
    }

    fn gauges(&self) -> GaugeSet {
        OpenRequests.gauges()
    }

    fn headers(&self) -> Vec<Box<str>> {
        let sources = self.sources.iter().filter_map(Source::header);
        [ID_HEADER].into_iter().chain(sources).map(Into::into).collect()
    }

    /// Of the endpoint by itself: who else there is may change where a key leads.
    fn score(&self, request: &RequestView<'_>, endpoint: &Endpoint) -> Score {
        let is_named = self.named(request).is_some_and(|named| self.is(&named, endpoint));
        Score::of(f64::from(u8::from(is_named || self.key(request).is_some())))
    }

    fn pass(&self) -> Pass {
        Pass::NoSay("without a home")
    }

    fn scores(&self, request: &RequestView<'_>, candidates: Candidates<'_>, scores: &mut Scores, trace: &mut Trace) {
        let session = (self.named(request), self.key(request));
        if let (None, None) = session {
            trace.note(|| "a new session: no endpoint is its home".into());
            scores.extend(std::iter::repeat_n(Score::UNKNOWN, candidates.len()));
            return;
        }
        let home = self.home(session, request, candidates, trace);
        scores.extend(candidates.iter().map(|endpoint| Score::of(f64::from(u8::from(home == Some(endpoint.id))))));
    }

    fn response_headers(&self, _: &RequestView<'_>, served: &Endpoint, headers: &mut ResponseHeaders) {
        if self.owes_warning.load(Relaxed) && self.owes_warning.swap(false, Relaxed) {
            warn!(
                "session ids are signed with a key that only this process has: after a restart and at another replica \
                 they name nobody, and their sessions move; set routing.session_key_file, the same for all replicas"
            );
        }
        headers.push((ID_HEADER, self.signer.issue(served).into()));
    }
}

#[cfg(test)]
mod tests;
