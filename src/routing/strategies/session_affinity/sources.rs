//! Where a request's session key is found.

use crate::routing::{Asked, BuildError};

/// Most bytes of a session key, as in AIBrix; a longer one is none.
const KEY_BYTES_MAX: usize = 256;

/// One place to look for a key, written `header:NAME`, `cookie:NAME` or `body:FIELD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A request header, in lower case.
    Header(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// `user` of the body.
    User,
    /// `session_id` of the body.
    SessionId,
    /// `prompt_cache_key` of the body.
    PromptCacheKey,
}

impl Source {
    /// Reads one.
    ///
    /// # Errors
    /// Anything but the forms above.
    pub(super) fn parse(text: &str) -> Result<Self, BuildError> {
        let fault = || {
            BuildError(format!(
                "\"{text}\" is no place for a session key; known are header:NAME, cookie:NAME, body:user, \
                 body:session_id and body:prompt_cache_key"
            ))
        };
        match text.split_once(':').ok_or_else(fault)? {
            ("header", name) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase().into())),
            ("cookie", name) if !name.is_empty() => Ok(Self::Cookie(name.into())),
            ("body", "user") => Ok(Self::User),
            ("body", "session_id") => Ok(Self::SessionId),
            ("body", "prompt_cache_key") => Ok(Self::PromptCacheKey),
            _ => Err(fault()),
        }
    }

    /// The header that has to be kept for it.
    pub(super) fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name) => Some(name),
            Self::Cookie(_) => Some("cookie"),
            Self::User | Self::SessionId | Self::PromptCacheKey => None,
        }
    }

    /// The request's key, if this is where it is: 1 to 256 bytes.
    pub(super) fn key<'a>(&self, asked: &'a Asked) -> Option<&'a str> {
        let key = match self {
            Self::Header(name) => asked.headers.get(name),
            Self::Cookie(name) => asked.headers.get("cookie").and_then(|cookies| cookie(cookies, name)),
            Self::User => asked.user.as_deref(),
            Self::SessionId => asked.session_id.as_deref(),
            Self::PromptCacheKey => asked.prompt_cache_key.as_deref(),
        };
        key.filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
    }
}

fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_are_said_to_be() {
        let mut asked = Asked { user: Some("u".into()), prompt_cache_key: Some("p".into()), ..Asked::default() };
        asked.headers.keep("x-user-id", "h");
        asked.headers.keep("cookie", "a=1; sid=\"c\"; sid2=x");
        let key = |source| Source::parse(source).unwrap().key(&asked);
        assert_eq!([key("header:X-User-Id"), key("cookie:sid"), key("body:user")], [Some("h"), Some("c"), Some("u")]);
        assert_eq!([key("body:prompt_cache_key"), key("body:session_id")], [Some("p"), None]);
        assert_eq!([key("cookie:si"), key("header:cookies")], [None, None]);
    }

    #[test]
    fn empty_and_overlong_keys_are_none() {
        for (length, is_key) in [(0, false), (1, true), (256, true), (257, false)] {
            let asked = Asked { user: Some("k".repeat(length).into()), ..Asked::default() };
            assert_eq!(Source::User.key(&asked).is_some(), is_key, "{length}");
        }
    }

    #[test]
    fn an_unknown_place_is_a_fault_that_lists_the_known() {
        for text in ["user", "header:", "body:model", "query:x"] {
            assert!(Source::parse(text).unwrap_err().to_string().contains("cookie:NAME"), "{text}");
        }
    }
}
