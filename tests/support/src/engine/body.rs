//! The body of an answer: whole, in prepared frames, or as the scheduler goes; each can be cut by a fault.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::Tally;

/// Time for what was sent to leave the socket before the connection is reset under it.
const CUT_PAUSE: Duration = Duration::from_millis(20);
/// Size of a piece of an answer that trickles.
const TRICKLE_BYTES: usize = 64;

/// Ends a connection without a proper answer.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("reset by fault")
    }
}

impl std::error::Error for Cut {}

/// Counts one request as in progress until it is dropped.
#[derive(Debug)]
pub(super) struct InProgress {
    tally: Arc<Tally>,
    complete: bool,
}

impl InProgress {
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        tally.received.fetch_add(1, Ordering::Relaxed);
        tally.in_progress.fetch_add(1, Ordering::Relaxed);
        Self { tally, complete: false }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.tally.in_progress.fetch_sub(1, Ordering::Relaxed);
        let ended = if self.complete { &self.tally.completed } else { &self.tally.aborted };
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

enum Source {
    Whole(Option<Bytes>),
    Frames { frames: Arc<[Bytes]>, next: usize },
    Stream(BoxStream<'static, Bytes>),
    Cutting(Pin<Box<Sleep>>),
}

/// An answer's body.
pub(super) struct ReplyBody {
    source: Source,
    cut_after: Option<usize>,
    guard: Option<InProgress>,
}

impl ReplyBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::new(Source::Whole(Some(bytes.into())))
    }

    pub(super) fn frames(frames: Arc<[Bytes]>) -> Self {
        Self::new(Source::Frames { frames, next: 0 })
    }

    pub(super) fn stream(stream: BoxStream<'static, Bytes>) -> Self {
        Self::new(Source::Stream(stream))
    }

    /// Bytes that are no text.
    pub(super) fn garbage(count: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(count as u64);
        Self::whole((0..count).map(|_| rng.u8(..)).collect::<Vec<u8>>())
    }

    /// The text in small pieces, so many bytes each second.
    pub(super) fn trickle(text: impl Into<Bytes>, bytes_per_second: u32) -> Self {
        let pause = Duration::from_secs_f64(TRICKLE_BYTES as f64 / f64::from(bytes_per_second.max(1)));
        let pieces = stream::unfold(text.into(), move |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            sleep(pause).await;
            let piece = rest.split_to(rest.len().min(TRICKLE_BYTES));
            Some((piece, rest))
        });
        Self::stream(pieces.boxed())
    }

    fn new(source: Source) -> Self {
        Self { source, cut_after: None, guard: None }
    }

    /// Counts the request as in progress until the body has gone.
    pub(super) fn guarded(mut self, guard: InProgress) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Resets the connection after so many chunks; a whole body is cut in its middle.
    pub(super) fn cut(mut self, after_chunks: usize) -> Self {
        self.cut_after = Some(after_chunks);
        if let Source::Whole(Some(bytes)) = &mut self.source {
            let head = bytes.split_to(bytes.len() / 2);
            self.source = Source::Frames { frames: [head, bytes.clone()].into(), next: 0 };
            self.cut_after = Some(after_chunks.min(1));
        }
        self
    }

    fn complete(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.complete = true;
        }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.source {
            Source::Whole(bytes) => Poll::Ready(bytes.take()),
            Source::Frames { frames, next } => {
                let frame = frames.get(*next).cloned();
                *next += 1;
                Poll::Ready(frame)
            }
            Source::Stream(stream) => stream.poll_next_unpin(context),
            Source::Cutting(_) => Poll::Ready(None),
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.cut_after == Some(0) {
            self.cut_after = None;
            self.source = Source::Cutting(Box::pin(sleep(CUT_PAUSE)));
        }
        if let Source::Cutting(pause) = &mut self.source {
            ready!(pause.as_mut().poll(context));
            return Poll::Ready(Some(Err(Cut)));
        }
        let bytes = ready!(self.next(context));
        if let Some(left) = &mut self.cut_after {
            *left -= 1;
        }
        let ended = bytes.is_none() || matches!(self.source, Source::Whole(None));
        if ended {
            self.complete();
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}
