//! What would be decided for a request, without deciding it.

use std::sync::Arc;

use super::machine::{Exchange, Steering};
use super::{BodyOutlook, Completeness, Core, Explanation, RequestHead, Step};

/// Runs a request up to its decision and tells why it would come out so: nothing is sent, nothing is counted, no place is
/// taken and no trial begun. `path` is the API's, such as `/v1/chat/completions`; names of `headers` are in lower case;
/// `pool` is as a route would name it.
///
/// One thing is as for a real request: the strategy is asked. One that keeps count of what it was asked, as
/// `round-robin` does, moves on by one.
pub fn explain(
    core: &Arc<Core>,
    path: &str,
    pool: Option<&str>,
    headers: &[(&str, &[u8])],
    body: Vec<u8>,
) -> Explanation {
    let mut exchange = Exchange::new(Arc::clone(core));
    exchange.steering = Steering::Dry;
    exchange.allow_rewrite();
    exchange.pool = pool.map(Into::into);
    let pseudo = [(":method", &b"POST"[..]), (":path", path.as_bytes())];
    // The length of the body is what it is here, however it came.
    let is_ours = |(name, _): &(&str, &[u8])| !name.starts_with(':') && *name != "content-length";
    let all = pseudo.into_iter().chain(headers.iter().copied().filter(is_ours));
    let head = RequestHead::read(all, exchange.kept_headers());
    let mut step = exchange.request_head(head, BodyOutlook::Coming);
    if matches!(step, Step::NeedBody) {
        step = match exchange.request_body(body) {
            Some(refusal) => Step::Answer(refusal),
            None => exchange.request_end(Completeness::Whole),
        };
    }
    let explained = exchange.explanation.take().map(|explanation| (*explanation).clone());
    let mut explanation = explained.unwrap_or_else(|| exchange.undecided());
    explanation.conclude(&step);
    explanation
}
