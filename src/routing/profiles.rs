//! Finding the config profile of a request.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::domain::{ModelProfiles, Profile, When};

/// Name of the profile that is taken where none is named.
const DEFAULT: &str = "default";
/// What a client writes to leave the choice to us.
const AUTO: &str = "auto";

/// Lengths of a request, as far as they are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Tokens of prompt.
    pub(super) prompt_tokens: Option<u32>,
    /// Tokens to which the request limits its answer.
    pub(super) max_tokens: Option<u32>,
}

/// The profile of a request: the one that it names, or by its lengths if it says `auto`, else the default one. There may
/// be none.
pub(super) fn select<'a>(
    profiles: &'a ModelProfiles,
    named: Option<&str>,
    lengths: Lengths,
) -> Option<(&'a Arc<str>, &'a Profile)> {
    let chosen = match named {
        Some(AUTO) => by_lengths(profiles, lengths),
        Some(name) => profiles.profiles.get_key_value(name),
        None => None,
    };
    chosen.or_else(|| profiles.profiles.get_key_value(profiles.default.as_deref().unwrap_or(DEFAULT)))
}

/// The profile whose lengths all hold. Of several the one that says most; then the narrowest, in AIBrix's order; then
/// the first by name.
fn by_lengths(profiles: &ModelProfiles, lengths: Lengths) -> Option<(&Arc<str>, &Profile)> {
    let fitting = profiles.profiles.iter().filter(|(_, profile)| hold(profile.when, lengths));
    // Of equal keys `max_by_key` takes the last, so the order of names is turned round.
    fitting.rev().max_by_key(|(_, profile)| {
        let When { prompt_tokens_gte, prompt_tokens_lt, max_tokens_gte, max_tokens_lt } = profile.when;
        // Without an upper limit there is the highest one.
        let below = |limit: Option<u32>| Reverse(limit.unwrap_or(u32::MAX));
        (count(profile.when), prompt_tokens_gte, below(prompt_tokens_lt), max_tokens_gte, below(max_tokens_lt))
    })
}

fn count(when: When) -> usize {
    let all = [when.prompt_tokens_gte, when.prompt_tokens_lt, when.max_tokens_gte, when.max_tokens_lt];
    all.iter().flatten().count()
}

/// Whether all lengths that are given hold, and there is at least one. On a length that is not known none does.
fn hold(when: When, lengths: Lengths) -> bool {
    let at_least =
        |limit: Option<u32>, length: Option<u32>| limit.is_none_or(|limit| length.is_some_and(|l| l >= limit));
    let below = |limit: Option<u32>, length: Option<u32>| limit.is_none_or(|limit| length.is_some_and(|l| l < limit));
    !when.is_empty()
        && at_least(when.prompt_tokens_gte, lengths.prompt_tokens)
        && below(when.prompt_tokens_lt, lengths.prompt_tokens)
        && at_least(when.max_tokens_gte, lengths.max_tokens)
        && below(when.max_tokens_lt, lengths.max_tokens)
}

#[cfg(test)]
mod tests {
    use crate::domain::{ANNOTATION_SAMPLE as SAMPLE, parse_annotation};

    use super::*;

    fn selected(named: Option<&str>, prompt_tokens: Option<u32>, max_tokens: Option<u32>) -> String {
        let profiles = parse_annotation(SAMPLE).unwrap();
        select(&profiles, named, Lengths { prompt_tokens, max_tokens }).unwrap().0.to_string()
    }

    #[test]
    fn a_profile_that_is_not_there_falls_to_the_default_and_there_may_be_none() {
        assert_eq!(selected(Some("long"), None, None), "long");
        assert_eq!(selected(Some("nonsense"), None, None), "chat");
        assert_eq!(selected(None, Some(2000), Some(2000)), "chat");
        let none = parse_annotation(r#"{"profiles":{"a":{}}}"#).unwrap();
        assert!(select(&none, None, Lengths::default()).is_none());
        let default = parse_annotation(r#"{"profiles":{"default":{}}}"#).unwrap();
        assert_eq!(&**select(&default, Some("x"), Lengths::default()).unwrap().0, "default");
    }

    #[test]
    fn auto_takes_the_profile_that_says_most_then_the_narrowest_then_the_first_by_name() {
        let auto = |prompt, max| selected(Some("auto"), prompt, max);
        assert_eq!(auto(Some(1000), None), "long", "`Gte` includes its limit");
        assert_eq!(auto(Some(999), None), "chat");
        assert_eq!(auto(Some(9000), None), "longest", "the larger lower limit");
        assert_eq!(auto(Some(9000), Some(512)), "batch", "two hints say more than one");
        assert_eq!(auto(Some(99), Some(63)), "a-short", "the first by name");
        assert_eq!(auto(Some(100), Some(63)), "chat", "`Lt` excludes its limit");
        assert_eq!(auto(Some(99), None), "chat", "a hint on what is not known does not hold");
        assert_eq!(auto(None, None), "chat");
    }
}
