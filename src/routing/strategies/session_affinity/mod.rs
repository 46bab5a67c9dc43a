//! Sessions stay where they are.
//!
//! A client that sends back the id which it was given goes to the endpoint that the id names; one that sends a key of
//! its own goes where the key ranks first. The gateway keeps nothing, so that replicas agree without talking.

mod rendezvous;
mod sources;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::Deserialize;
use tracing::warn;

use crate::domain::GaugeSet;
use crate::routing::{
    About, BuildError, Built, Candidates, Decision, Needs, OpenRequests, Parameter, Parameters, Picker, Registration,
    RequestView, ResponseHeaders, Router, Scorer, Trace,
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
        formula: "First the endpoint that the header `x-session-id` names. Else, for a session key, the endpoint that \
                  ranks first for it (weighted rendezvous hashing), which moves 1/n of the sessions when one of n \
                  endpoints comes or goes. An endpoint with more than `bound` times the mean of open requests per \
                  weight, and `slack` at least, is passed over. Else the fewest open requests. The answer's \
                  `x-session-id` names the endpoint that served: signed, and without its address.",
        missing: "An id that is forged, or names an endpoint that is gone, not ready or overloaded, is replaced by a \
                  new one. Without a fresh reading of the engine, our own requests alone are the load.",
        source: "AIBrix `session-affinity`; bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018.",
    },
    parameters: &[
        Parameter {
            name: "key",
            default: "random",
            about: "Secret that ids are signed with, 16 bytes at least. All replicas need the same; without one, ids \
                    are good for this process only.",
        },
        Parameter { name: "key_file", default: "none", about: "File that holds the secret, instead of `key`." },
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
    build: |parameters| Ok(Built::Router(Arc::new(SessionAffinity::build(parameters)?))),
};

/// The header that carries session ids, both ways.
const ID_HEADER: &str = "x-session-id";
/// Least bytes of a secret.
const KEY_BYTES_MIN: usize = 16;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    key: Option<String>,
    key_file: Option<std::path::PathBuf>,
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
        let key = secret(&settings)?;
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

    fn position(&self, named: &Named, candidates: Candidates<'_>) -> Option<usize> {
        match named {
            Named::Identity(identity) => candidates.iter().position(|e| self.signer.identity(e) == *identity),
            Named::Address(address) => candidates.iter().position(|e| e.spec.address == *address),
        }
    }
}

fn secret(settings: &Settings) -> Result<Option<Vec<u8>>, BuildError> {
    let key = match (&settings.key, &settings.key_file) {
        (Some(_), Some(_)) => return Err(BuildError("\"key\" and \"key_file\" exclude each other".into())),
        (Some(key), None) => key.clone().into_bytes(),
        (None, Some(path)) => std::fs::read(path)
            .map(|bytes| bytes.trim_ascii().to_owned())
            .map_err(|error| BuildError(format!("\"key_file\" \"{}\": {error}", path.display())))?,
        (None, None) => return Ok(None),
    };
    if key.len() < KEY_BYTES_MIN {
        return Err(BuildError(format!("the key has {} bytes; it needs {KEY_BYTES_MIN} at least", key.len())));
    }
    Ok(Some(key))
}

impl Router for SessionAffinity {
    fn needs(&self) -> Needs {
        let mut headers: Vec<Box<str>> = vec![ID_HEADER.into()];
        headers.extend(self.sources.iter().filter_map(Source::header).map(Into::into));
        let gauges: GaugeSet = OpenRequests.gauges();
        Needs { gauges, ..Needs::default() }.with(Needs { headers, ..Needs::default() })
    }

    fn route(&self, request: &RequestView<'_>, candidates: Candidates<'_>, trace: &mut Trace) -> Decision {
        let named = self.named(request);
        let key = self.sources.iter().find_map(|source| source.key(request.asked));
        if named.is_none() && key.is_none() {
            trace.note(|| "a new session: the least loaded is taken".into());
            return Decision::Send(Arc::clone(Picker::Best.pick(request, candidates, &OpenRequests)));
        }
        let loads = Loads::of(request, candidates, self.bound);
        if let Some(named) = named {
            match self.position(&named, candidates) {
                Some(position) if !loads.is_overloaded(position) => {
                    trace.note(|| "the session's id names this endpoint".into());
                    return Decision::Send(Arc::clone(candidates.at(position)));
                }
                Some(_) => trace.note(|| "the session's endpoint is overloaded".into()),
                None => trace.note(|| "the session's endpoint is gone or not ready".into()),
            }
        }
        if let Some(key) = key {
            let (endpoint, is_first) = loads.ranked(key.as_bytes());
            trace.note(|| {
                let overloaded = "those that the session's key ranks higher are overloaded";
                if is_first { "the session's key ranks this endpoint first" } else { overloaded }.into()
            });
            return Decision::Send(Arc::clone(endpoint));
        }
        Decision::Send(Arc::clone(Picker::Best.pick(request, candidates, &OpenRequests)))
    }

    fn response_headers(&self, _: &RequestView<'_>, served: &Endpoint, headers: &mut ResponseHeaders) {
        if self.owes_warning.load(Relaxed) && self.owes_warning.swap(false, Relaxed) {
            warn!("session ids are signed with a key of this process only; with several replicas, set the key");
        }
        headers.push((ID_HEADER, self.signer.issue(served).into()));
    }
}

#[cfg(test)]
mod tests;
