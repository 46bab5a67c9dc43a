//! The side of the request.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memchr::memmem;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::config::{LmCache, TokenSource, Tokenizer};
use crate::domain::EndpointId;
use crate::index::{Held, HeldIndex, TokenPrompt};
use crate::openai::{Api, Head};
use crate::routing::{Resume, Wait};

use super::cache::TokenCache;
use super::status::{LookupStatus, Outcome};

/// Fields beside the prompt that change how an engine puts it into tokens. They are rare, so a request that has one is
/// known by its whole body.
const TEMPLATE_FIELDS: [&[u8]; 4] =
    [b"\"chat_template", b"_generation_prompt\"", b"_final_message\"", b"_special_tokens\""];
/// What a prompt with media has: engines would fetch them to answer.
const MEDIA: [&[u8]; 3] = [b"_url\"", b"\"input_audio\"", b"\"input_image\""];

/// What is known of a prompt.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its token ids.
    pub tokens: Arc<[u32]>,
    /// Tokens that endpoints have beside what their engines tell.
    pub also: Vec<(EndpointId, u32)>,
}

impl Found {
    /// How much of the prompt endpoints have cached.
    pub fn held(&self, index: &HeldIndex, prompt: &TokenPrompt<'_>) -> Held {
        let mut held = index.look_up(prompt);
        for (endpoint, tokens) in &self.also {
            held.raise(*endpoint, *tokens);
        }
        held
    }
}

/// The answer to a question, once it is there.
#[derive(Debug, Clone, Default)]
pub struct Pending(pub(super) Arc<OnceLock<Result<Found, Outcome>>>);

impl Pending {
    /// The answer, or why there is none.
    pub fn take(self) -> Result<Found, Outcome> {
        self.0.get().cloned().unwrap_or(Err(Outcome::Late))
    }
}

/// What a lookup begins with.
#[derive(Debug)]
pub enum Begun {
    /// All is known.
    Known(Found, Outcome),
    /// It will be, or not, when this is resumed.
    Waits(Pending, Wait),
    /// It cannot be had, so the decision goes by the text.
    Cannot(Outcome),
}

/// A request as far as lookups go by it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What it calls.
    pub api: Api,
    /// The model that it names.
    pub model: &'a str,
    /// Its head.
    pub head: &'a Head<'a>,
    /// Its body.
    pub body: &'a [u8],
    /// Its prompt in one form ([`Key`]); `None` if it was too long for that.
    pub key: Option<u128>,
    /// Whether it can wait; if not, only what is known at once counts.
    pub may_wait: bool,
}

/// What the worker is asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) key: u128,
    pub(super) model: Box<str>,
    pub(super) salt: Option<Box<str>>,
    pub(super) is_chat: bool,
    pub(super) body: Bytes,
    /// The token ids, where only `LMCache` is still to be asked.
    pub(super) tokens: Option<Arc<[u32]>>,
    pub(super) answer: Pending,
    /// Dropped when the answer is there.
    pub(super) resume: Resume,
}

/// Looks up what is known of prompts. Shared by all requests.
#[derive(Debug)]
pub struct Lookup {
    index: Arc<HeldIndex>,
    status: Arc<LookupStatus>,
    pub(super) cache: TokenCache,
    questions: mpsc::Sender<Question>,
    source: TokenSource,
    body_bytes_max: usize,
    asks_lmcache: bool,
}

impl Lookup {
    /// One side of a lookup, and the questions for the other.
    pub(super) fn new(
        index: Arc<HeldIndex>,
        tokenizer: &Tokenizer,
        lmcache: &LmCache,
    ) -> (Arc<Self>, mpsc::Receiver<Question>) {
        let (questions, received) = mpsc::channel(tokenizer.concurrency.max(1));
        let lookup = Self {
            index,
            status: Arc::default(),
            cache: TokenCache::new((tokenizer.cache_mib as usize) << 20),
            questions,
            source: tokenizer.source,
            body_bytes_max: tokenizer.body_bytes_max,
            asks_lmcache: lmcache.controller.is_some() || lmcache.coordinator.is_some(),
        };
        (Arc::new(lookup), received)
    }

    /// What engines hold by their own account.
    pub fn index(&self) -> &Arc<HeldIndex> {
        &self.index
    }

    /// Counts.
    pub fn status(&self) -> &Arc<LookupStatus> {
        &self.status
    }

    /// Bytes of token ids kept.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Begins a lookup.
    pub fn begin(&self, request: &Request<'_>) -> Begun {
        let begun = self.find_or_ask(request);
        match &begun {
            Begun::Known(_, outcome) | Begun::Cannot(outcome) => self.status.count(*outcome),
            // Counted when it is over.
            Begun::Waits(..) => {}
        }
        begun
    }

    fn find_or_ask(&self, request: &Request<'_>) -> Begun {
        let is_chat = match request.api {
            Api::Chat => true,
            Api::Completions => false,
            _ => return Begun::Cannot(Outcome::Unsuited),
        };
        let given = request.head.prompt.filter(|_| !is_chat).and_then(|raw| token_ids(raw.get()));
        let mut key = request.key.unwrap_or_default();
        let (mut tokens, outcome) = match given {
            Some(tokens) => (Some(tokens), Outcome::Given),
            None if self.is_suited(request) => {
                key = if has_any(request.body, &TEMPLATE_FIELDS) { xxh3_128(request.body) } else { key };
                (self.cache.get(key), Outcome::Kept)
            }
            None => return Begun::Cannot(Outcome::Unsuited),
        };
        if let Some(tokens) = tokens.take_if(|_| !self.asks_lmcache || !request.may_wait) {
            return Begun::Known(Found { tokens, also: Vec::new() }, outcome);
        }
        if !request.may_wait || (tokens.is_none() && self.source == TokenSource::None) {
            return Begun::Cannot(Outcome::Nobody);
        }
        let (wait, resume) = Wait::new();
        let answer = Pending::default();
        let question = Question {
            key,
            model: request.model.into(),
            salt: request.head.cache_salt.as_deref().map(Into::into),
            is_chat,
            body: if tokens.is_some() { Bytes::new() } else { Bytes::copy_from_slice(request.body) },
            tokens,
            answer: answer.clone(),
            resume,
        };
        match self.questions.try_send(question) {
            Ok(()) => Begun::Waits(answer, wait),
            Err(_) => Begun::Cannot(Outcome::Busy),
        }
    }

    fn is_suited(&self, request: &Request<'_>) -> bool {
        let prompt = request.head.prompt.map_or("", |raw| raw.get());
        request.key.is_some() && request.body.len() <= self.body_bytes_max && !has_any(prompt.as_bytes(), &MEDIA)
    }
}

/// A prompt that is token ids already.
fn token_ids(prompt: &str) -> Option<Arc<[u32]>> {
    let rest = prompt.strip_prefix('[')?.trim_start();
    rest.starts_with(|first: char| first.is_ascii_digit()).then(|| serde_json::from_str(prompt).ok()).flatten()
}

fn has_any(text: &[u8], needles: &[&[u8]]) -> bool {
    needles.iter().any(|needle| memmem::find(text, needle).is_some())
}

/// The digest of a prompt in its one form, with what else its token ids depend on.
pub struct Key(Xxh3);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Of a prompt for a model.
    pub fn of_model(model: &str) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(model.as_bytes());
        hasher.update(&[0xff]);
        Self(hasher)
    }

    /// Takes the next bytes of the prompt.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn digest(&self) -> u128 {
        self.0.digest128()
    }
}
