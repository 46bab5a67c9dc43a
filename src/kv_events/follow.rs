//! Following one publisher: connect, replay, listen, and again when the connection is lost.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::feed::{AskReplay, Feed, Sink};
use super::source::Source;
use super::status::EventStatus;
use super::transport::{Message, Subscription, Transport, TransportError};

/// First and longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Messages of a replay that may wait.
const REPLAY_QUEUE: usize = 256;
/// How long a replay may be silent.
const REPLAY_SILENCE: Duration = Duration::from_secs(5);

/// A replay that runs.
struct Replay<'t> {
    running: Pin<Box<dyn Future<Output = Result<(), TransportError>> + Send + 't>>,
    messages: mpsc::Receiver<Message>,
    deadline: Instant,
}

/// What happens to a replay.
enum Progress {
    Message(Message),
    Ended(Result<(), TransportError>),
}

impl Replay<'_> {
    async fn next(replay: &mut Option<Self>) -> Progress {
        let Some(replay) = replay else { return pending().await };
        tokio::select! {
            biased;
            Some(message) = replay.messages.recv() => {
                replay.deadline = Instant::now() + REPLAY_SILENCE;
                Progress::Message(message)
            }
            ended = &mut replay.running => match replay.messages.try_recv() {
                // Its sender is gone, so what still waits is all there is. The next call ends by the deadline's time.
                Ok(message) => {
                    replay.running = Box::pin(async { ended });
                    Progress::Message(message)
                }
                Err(_) => Progress::Ended(ended),
            },
            () = sleep_until(replay.deadline) => {
                Progress::Ended(Err(TransportError::Lost("the replay fell silent".to_owned())))
            }
        }
    }
}

/// Follows one publisher for good: `sink` is kept in step with it as far as it can be. Drop it to stop.
pub(super) async fn follow<T: Transport>(
    transport: &T,
    source: &Source,
    sink: &mut (impl Sink + Send),
    status: &Arc<EventStatus>,
) {
    let (mut feed, mut pause) = (Feed::new(source.replay.is_some()), PAUSE_MIN);
    loop {
        match transport.subscribe(&source.address, &source.topic).await {
            Ok(subscription) => {
                info!(publisher = source.address, "KV events are followed");
                let _connected = Connected::count(status);
                let error = listen(transport, source, subscription, (&mut feed, sink), status).await;
                info!(publisher = source.address, %error, "KV events are no longer followed");
                feed.lost(sink);
                pause = PAUSE_MIN;
            }
            Err(error) => {
                status.connects_failed.fetch_add(1, Relaxed);
                debug!(publisher = source.address, %error, "KV events cannot be followed");
            }
        }
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn listen<'t, T: Transport>(
    transport: &'t T,
    source: &'t Source,
    mut subscription: T::Subscription,
    (feed, sink): (&mut Feed, &mut (impl Sink + Send)),
    status: &EventStatus,
) -> TransportError {
    let begin = |AskReplay(from): AskReplay| {
        let address = source.replay.as_deref()?;
        status.replays.fetch_add(1, Relaxed);
        let (sender, messages) = mpsc::channel(REPLAY_QUEUE);
        let running = Box::pin(transport.replay(address, from, sender));
        Some(Replay { running, messages, deadline: Instant::now() + REPLAY_SILENCE })
    };
    let mut replay = feed.connected().and_then(begin);
    loop {
        tokio::select! {
            received = subscription.next() => match received {
                Ok((number, payload)) => {
                    if let Some(asked) = feed.live(number, payload, sink) {
                        replay = begin(asked);
                    }
                }
                Err(TransportError::Shape(frames)) => debug!(frames, "a message that is not one of events"),
                Err(error) => return error,
            },
            progress = Replay::next(&mut replay) => match progress {
                Progress::Message((number, payload)) => feed.replayed(number, &payload, sink),
                Progress::Ended(ended) => {
                    if let Err(error) = &ended {
                        status.replays_failed.fetch_add(1, Relaxed);
                        info!(publisher = source.address, %error, "a replay of KV events failed");
                    }
                    feed.replay_ended(ended.is_ok(), sink);
                    replay = None;
                }
            },
        }
    }
}

/// Counts a connection in and, on drop, out.
struct Connected(Arc<EventStatus>);

impl Connected {
    fn count(status: &Arc<EventStatus>) -> Self {
        status.connected.fetch_add(1, Relaxed);
        Self(Arc::clone(status))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
