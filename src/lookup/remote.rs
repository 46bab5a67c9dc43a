//! Token ids from an engine or a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;

use crate::ask::{self, AskError, Asker};
use crate::config::{TokenApi, TokenSource, Tokenizer};
use crate::domain::Clock;
use crate::state::{Endpoint, Reader};

use super::breaker::Breaker;
use super::hot::Question;
use super::status::Outcome;

/// Longest answer: a million token ids.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Asks for token ids.
#[derive(Debug)]
pub(super) struct Remote {
    config: Tokenizer,
    asker: Asker,
    reader: Reader,
    clock: Clock,
    /// By authority.
    breaker: Breaker<String>,
    /// Goes round, so that all engines are asked in turn.
    turn: AtomicUsize,
}

/// `/tokenize` and the render endpoint of chats.
#[derive(Debug, Deserialize)]
struct Tokens {
    #[serde(alias = "token_ids")]
    tokens: Vec<u32>,
}

/// The render endpoint of completions answers a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    One(Tokens),
    Several(Vec<Tokens>),
}

/// The token ids of an answer; `None` if there is not exactly one prompt in it.
pub(super) fn read(answer: &[u8]) -> Option<Vec<u32>> {
    match serde_json::from_slice(answer).ok()? {
        Answer::One(one) => Some(one.tokens),
        Answer::Several(several) => {
            let [one] = <[Tokens; 1]>::try_from(several).ok()?;
            Some(one.tokens)
        }
    }
}

impl Remote {
    pub(super) fn new(config: Tokenizer, reader: Reader, clock: Clock) -> Self {
        let asker = Asker::new(ANSWER_BYTES_MAX);
        Self { config, asker, reader, clock, breaker: Breaker::default(), turn: AtomicUsize::new(0) }
    }

    pub(super) async fn tokens(&self, question: &Question) -> Result<Arc<[u32]>, Outcome> {
        let path = match self.config.api {
            TokenApi::Tokenize => "/tokenize".to_owned(),
            TokenApi::Render if question.is_chat => "/v1/chat/completions/render".to_owned(),
            TokenApi::Render => "/v1/completions/render".to_owned(),
        };
        let uri = self.whom(question, &path).ok_or(Outcome::Nobody)?;
        let whom = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let asked = self.asker.post(uri, Bytes::clone(&question.body));
        let outcome = match timeout(self.config.timeout, asked).await {
            Ok(Ok(answer)) => read(&answer).ok_or(Outcome::Failed),
            Ok(Err(error)) => {
                tracing::debug!(%error, whom, "no token ids");
                // It is there, and does not like this one request: others go on asking it.
                if matches!(error, AskError::Status(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)) {
                    return Err(Outcome::Failed);
                }
                Err(Outcome::Failed)
            }
            Err(_) => Err(Outcome::Late),
        };
        match outcome {
            Ok(tokens) => {
                self.breaker.answered(&whom);
                Ok(tokens.into())
            }
            Err(outcome) => {
                self.breaker.failed(whom, self.clock.now());
                Err(outcome)
            }
        }
    }

    /// Who is asked: the service, or the next endpoint that serves the model and is not left alone.
    fn whom(&self, question: &Question, path: &str) -> Option<Uri> {
        let now = self.clock.now();
        if self.config.source == TokenSource::Service {
            let base = self.config.url.as_deref()?.trim_end_matches('/');
            let uri: Uri = format!("{base}{path}").parse().ok()?;
            return self.breaker.allows(&uri.authority()?.as_str().to_owned(), now).then_some(uri);
        }
        let snapshot = self.reader.load();
        let serving = snapshot.serving(&question.model);
        let turn = self.turn.fetch_add(1, Relaxed) % serving.len().max(1);
        let (behind, ahead) = serving.split_at(turn);
        let allowed = |endpoint: &&Arc<Endpoint>| self.breaker.allows(&endpoint.spec.address.to_string(), now);
        let endpoint = ahead.iter().chain(behind).find(allowed)?;
        ask::uri(endpoint.spec.address, path).ok()
    }
}
