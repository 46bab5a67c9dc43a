//! Which strategy a request gets: its model's lock, what its client asks for, its config profile, the default.

use std::sync::Arc;

use crate::domain::ModelProfiles;

use super::profiles::{Lengths, select};
use super::{Asked, ChoiceError, Strategy, StrategySet};

/// What a client asks for in its headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// `routing-strategy`.
    pub strategy: Option<&'a str>,
    /// `config-profile`.
    pub profile: Option<&'a str>,
}

/// The strategy of a request.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The strategy.
    pub strategy: Strategy,
    /// The config profile that applies, if the model has some.
    pub profile: Option<Arc<str>>,
    /// What the model's profiles say that is no strategy: the default one decides instead.
    pub in_vain: Option<Box<InVain>>,
}

/// A text that does not give a strategy.
#[derive(Debug, Clone)]
pub struct InVain {
    /// The text, or its beginning.
    pub text: String,
    /// What is wrong with it.
    pub error: ChoiceError,
}

impl StrategySet {
    /// The strategy of a request for `asked.model`, which may be an adapter of another model. `published` are the
    /// profiles that come with the model's endpoints; those of the configuration go before them.
    ///
    /// # Errors
    /// If what the client asks for decides and is not a strategy. What profiles say is not the client's fault.
    pub fn choose(
        &self,
        wish: Wish<'_>,
        asked: &Asked,
        adapter_of: Option<&str>,
        published: Option<&ModelProfiles>,
    ) -> Result<Choice, ChoiceError> {
        let own = |model: &str| self.models.get(model);
        let profiles = own(&asked.model).or_else(|| adapter_of.and_then(own)).or(published);
        let lengths = || Lengths {
            // A prompt of nothing is one that we were not shown.
            prompt_tokens: Some(asked.work.prompt_tokens).filter(|tokens| *tokens > 0),
            max_tokens: asked.max_tokens,
        };
        let profile = profiles.and_then(|profiles| select(profiles, wish.profile, lengths()));
        let locked = profiles.and_then(|profiles| profiles.locked.as_deref());
        let wished = wish.strategy.filter(|_| self.header && locked.is_none());
        let (strategy, in_vain) = match wished {
            Some(text) => (self.resolve(text)?, None),
            None => self.of_profiles(locked.or(profile.and_then(|(_, profile)| profile.strategy.as_deref()))),
        };
        Ok(Choice { strategy, profile: profile.map(|(name, _)| Arc::clone(name)), in_vain })
    }

    /// The strategy of a text in profiles, or the default one. Those of endpoints were not checked when we started.
    fn of_profiles(&self, text: Option<&str>) -> (Strategy, Option<Box<InVain>>) {
        let default = || self.default_strategy().clone();
        let Some(text) = text else { return (default(), None) };
        match self.resolve(text) {
            Ok(strategy) => (strategy, None),
            Err(error) => (default(), Some(Box::new(InVain { text: text.chars().take(80).collect(), error }))),
        }
    }

    /// Refuses what a client asks for before its body is there, if that cannot depend on the model.
    ///
    /// # Errors
    /// If it is not a strategy, and no model has a lock that goes before it; `any_lock` says so of the endpoints'
    /// profiles.
    pub fn check_wish(&self, wish: Wish<'_>, any_lock: bool) -> Result<(), ChoiceError> {
        let locks = any_lock || self.models.values().any(|profiles| profiles.locked.is_some());
        match wish.strategy {
            Some(text) if self.header && !locks => self.resolve(text).map(drop),
            _ => Ok(()),
        }
    }
}
