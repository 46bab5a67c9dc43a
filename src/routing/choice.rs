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
}

impl StrategySet {
    /// The strategy of a request for `asked.model`, which may be an adapter of another model. `published` are the
    /// profiles that come with the model's endpoints; those of the configuration go before them.
    ///
    /// # Errors
    /// If what decides is not a strategy.
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
        let text = profiles
            .and_then(|profiles| profiles.locked.as_deref())
            .or(wish.strategy.filter(|_| self.header))
            .or(profile.and_then(|(_, profile)| profile.strategy.as_deref()));
        let strategy = text.map_or_else(|| Ok(self.default_strategy().clone()), |text| self.resolve(text))?;
        Ok(Choice { strategy, profile: profile.map(|(name, _)| Arc::clone(name)) })
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
