//! The numbering of one publisher's batches: what is missing, what came twice, and when it began anew.
//!
//! It knows no socket and no clock. Whoever has them tells it what came, and does what it asks for: a replay, which is a
//! second conversation with the same publisher in which it repeats what it still has, from a number on.

use std::collections::VecDeque;

use bytes::Bytes;

/// Messages that are kept while a replay runs, and their bytes; above it the replay is given up.
const KEPT_MAX: usize = 8192;
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Where batches go.
pub(super) trait Sink {
    /// Takes the next batch.
    fn apply(&mut self, payload: &[u8]);
    /// Everything before is void.
    fn clear(&mut self, reason: Reason);
    /// Tells whether nothing is missing since the publisher began.
    fn set_complete(&mut self, complete: bool);
}

/// Why everything before is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Batches are missing and cannot be had.
    Gap,
    /// The publisher began anew.
    Restart,
    /// The connection was lost.
    Lost,
}

/// A replay is to be asked for, from this number on. Answers to an earlier request are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AskReplay(pub(super) u64);

type Message = (u64, Bytes);

/// What is known of a publisher's numbering.
#[derive(Debug)]
pub(super) struct Feed {
    can_replay: bool,
    /// The number that comes next; `None` before the first.
    next: Option<u64>,
    /// The last number that came live: they only ever rise, unless the publisher begins anew.
    live: Option<u64>,
    /// What came live while a replay runs.
    kept: Option<VecDeque<Message>>,
    kept_bytes: usize,
}

impl Feed {
    pub(super) fn new(can_replay: bool) -> Self {
        Self { can_replay, next: None, live: None, kept: None, kept_bytes: 0 }
    }

    /// Whether a replay runs.
    pub(super) fn is_replaying(&self) -> bool {
        self.kept.is_some()
    }

    /// A connection was made. What was published before is asked for.
    pub(super) fn connected(&mut self) -> Option<AskReplay> {
        *self = Self::new(self.can_replay);
        self.ask(0)
    }

    /// The connection was lost, and with it nobody knows how many messages.
    pub(super) fn lost(&mut self, sink: &mut impl Sink) {
        *self = Self::new(self.can_replay);
        sink.clear(Reason::Lost);
        sink.set_complete(false);
    }

    /// A message came.
    pub(super) fn live(&mut self, number: u64, payload: Bytes, sink: &mut impl Sink) -> Option<AskReplay> {
        if is_nonsense(number) {
            return None;
        }
        if self.live.is_some_and(|last| number <= last) {
            *self = Self::new(self.can_replay);
            sink.clear(Reason::Restart);
            sink.set_complete(false);
            if number > 0 {
                self.live = Some(number);
                let asked = self.ask(0);
                self.take(number, payload, sink);
                return asked;
            }
        }
        self.live = Some(number);
        let is_gap = self.next.is_some_and(|next| number > next);
        let asked = if is_gap && !self.is_replaying() { self.ask(self.next.unwrap_or(0)) } else { None };
        self.take(number, payload, sink);
        asked
    }

    /// A message of the replay came.
    pub(super) fn replayed(&mut self, number: u64, payload: &[u8], sink: &mut impl Sink) {
        if self.is_replaying() && !is_nonsense(number) {
            self.advance(number, payload, sink);
        }
    }

    /// The replay ended; `whole` if its end was marked.
    pub(super) fn replay_ended(&mut self, whole: bool, sink: &mut impl Sink) {
        let Some(kept) = self.kept.take() else { return };
        self.kept_bytes = 0;
        if !whole {
            // What was replayed so far is right; the next message tells whether something is missing behind it.
            tracing::debug!("a replay of KV events broke off");
        } else if self.next.is_none() {
            // Nothing was ever published.
            sink.set_complete(kept.front().is_none_or(|(number, _)| *number == 0));
            self.next = kept.front().is_none().then_some(0);
        }
        for (number, payload) in kept {
            self.advance(number, &payload, sink);
        }
    }

    fn ask(&mut self, from: u64) -> Option<AskReplay> {
        self.can_replay.then(|| {
            (self.kept, self.kept_bytes) = (Some(VecDeque::new()), 0);
            AskReplay(from)
        })
    }

    /// Keeps a message for later while a replay runs.
    fn take(&mut self, number: u64, payload: Bytes, sink: &mut impl Sink) {
        let Some(kept) = &mut self.kept else { return self.advance(number, &payload, sink) };
        self.kept_bytes += payload.len();
        kept.push_back((number, payload));
        if kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            self.replay_ended(false, sink);
        }
    }

    /// Takes what is next, and passes over what was taken before.
    fn advance(&mut self, number: u64, payload: &[u8], sink: &mut impl Sink) {
        match self.next {
            // The first that is seen of this publisher.
            None => sink.set_complete(number == 0),
            Some(next) if number < next => return,
            Some(next) if number > next => {
                sink.clear(Reason::Gap);
                sink.set_complete(false);
            }
            Some(_) => {}
        }
        sink.apply(payload);
        self.next = Some(number + 1);
    }
}

/// Whether a number is none that a publisher counts up to: it marks the end of a replay, and none could follow it.
fn is_nonsense(number: u64) -> bool {
    let is_last = number == u64::MAX;
    if is_last {
        tracing::debug!("a batch of KV events has the number that ends a replay, and is passed over");
    }
    is_last
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
