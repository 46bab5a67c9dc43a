//! What engines tell of their caches, for one request: its token ids are looked up first, which may take a wait.

use crate::index::{Awaited, Held, TokenPrompt};
use crate::lookup::{Begun, Found, Outcome, Pending, Request};
use crate::openai::{Api, Head};
use crate::state::{Endpoint, Snapshot};

use super::Step;
use super::machine::{Exchange, Steering};

/// What a prompt is known by; nothing if it was too long to be read whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptKey(pub(super) Option<u128>);

/// A lookup, begun or over.
#[derive(Debug)]
pub(super) struct Told {
    state: State,
    salt: Option<Box<str>>,
}

#[derive(Debug)]
enum State {
    Waits(Pending),
    Known(Found, Outcome),
    Unknown(Outcome),
}

impl Told {
    /// What became of it, for people.
    pub(super) fn text(&self, held: &Held, chosen: Option<&Endpoint>) -> String {
        match &self.state {
            State::Known(found, outcome) => {
                let told = chosen.and_then(|endpoint| held.tokens(endpoint.id));
                let there = told.map_or_else(|| "not all known".to_owned(), |tokens| tokens.to_string());
                let (outcome, count, most) = (outcome.text(), found.tokens.len(), held.most());
                format!("{outcome}: of {count} tokens cached there: {there}, at most anywhere: {most}")
            }
            State::Waits(_) => "waits for token ids".to_owned(),
            State::Unknown(outcome) => format!("{}: what is cached is guessed by the text", outcome.text()),
        }
    }
}

impl Exchange {
    /// Begins to look up the prompt. A step if the decision has to wait for that.
    pub(super) fn look_up(&mut self, api: Api, head: &Head<'_>, body: &[u8], key: PromptKey) -> Option<Step> {
        let lookup = self.core.lookup.as_ref()?;
        // Who makes the token ids knows the model that serves, and not the client's name for it.
        let rewritten = self.rewritten(body);
        let body = rewritten.as_deref().unwrap_or(body);
        let request =
            Request { api, model: &self.asked.model, head, body, key: key.0, may_wait: self.steering != Steering::Dry };
        let (state, step) = match lookup.begin(&request) {
            Begun::Known(found, outcome) => (State::Known(found, outcome), None),
            Begun::Cannot(outcome) => (State::Unknown(outcome), None),
            Begun::Waits(pending, wait) => (State::Waits(pending), Some(Step::Wait(wait))),
        };
        // A salt is a client's text: one that is too long to be kept makes blocks that nobody else shares anyway.
        let salt = head.cache_salt.as_deref().map(|salt| salt.chars().take(SALT_CHARS_MAX).collect::<String>().into());
        self.told = Some(Told { state, salt });
        step
    }

    /// The wait for the lookup is over, whatever came of it. False if there was none.
    pub(super) fn looked_up(&mut self) -> bool {
        let Some(told) = self.told.take_if(|told| matches!(told.state, State::Waits(_))) else { return false };
        let Told { state: State::Waits(pending), salt } = told else { return false };
        let state = match pending.take() {
            Ok(found) => State::Known(found, Outcome::Asked),
            Err(outcome) => State::Unknown(outcome),
        };
        self.told = Some(Told { state, salt });
        true
    }

    /// Looks up who has how much of the prompt, as it is now.
    pub(super) fn take_held(&mut self, snapshot: &Snapshot) {
        let (Some(lookup), Some(Told { state: State::Known(found, _), salt })) = (&self.core.lookup, &self.told) else {
            return;
        };
        let prompt = self.prompt(found, salt.as_deref(), snapshot);
        self.asked.held = found.held(lookup.index(), &prompt);
        self.asked.work.prompt_tokens = u32::try_from(found.tokens.len()).unwrap_or(u32::MAX);
    }

    /// The prompt was sent there: it will be cached, but the engine says so only later.
    pub(super) fn await_told(&self, endpoint: &Endpoint) -> Option<Awaited> {
        self.core.lookup.as_ref()?.index().expect(endpoint.id, &self.asked.held, self.core.clock.now())
    }

    fn prompt<'a>(&'a self, found: &'a Found, salt: Option<&'a str>, snapshot: &Snapshot) -> TokenPrompt<'a> {
        let is_adapter = self.fleet(snapshot).model(&self.asked.model).is_some_and(|view| view.parent.is_some());
        TokenPrompt { tokens: &found.tokens, adapter: is_adapter.then_some(&*self.asked.model), salt }
    }
}

/// Longest salt that is kept.
const SALT_CHARS_MAX: usize = 256;
