//! Waiting for something before a decision, without a future: anybody may resume, any front end may watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

#[derive(Debug, Default)]
struct Signal {
    resumed: AtomicBool,
    waker: AtomicWaker,
}

/// A decision that is not ready yet.
#[derive(Debug)]
pub struct Wait(Arc<Signal>);

/// The other end: resumes the waiting request, at the latest when dropped.
#[derive(Debug)]
pub struct Resume(Arc<Signal>);

impl Wait {
    /// A wait and the handle that ends it.
    pub fn new() -> (Self, Resume) {
        let signal = Arc::new(Signal::default());
        (Self(Arc::clone(&signal)), Resume(signal))
    }

    /// Whether the request may be routed again; registers to be woken if not.
    pub fn poll_resumed(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        if self.0.resumed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Resume {
    /// Whether the request still waits; false once it was given up.
    pub fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Drop for Resume {
    fn drop(&mut self) {
        self.0.resumed.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_handle_resumes_the_request() {
        let (wait, resume) = Wait::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(wait.poll_resumed(&mut context).is_pending());
        assert!(resume.is_awaited());
        drop(resume);
        assert!(wait.poll_resumed(&mut context).is_ready());
    }

    #[test]
    fn a_request_that_gave_up_is_seen_by_the_other_end() {
        let (wait, resume) = Wait::new();
        drop(wait);
        assert!(!resume.is_awaited());
    }
}
