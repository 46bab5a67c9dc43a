//! One watch: lists, follows, and begins again when something breaks.

use std::fmt::Debug;
use std::future;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time;
use tracing::{debug, info, warn};

use super::objects::{Custom, Name, Pod};
use super::picture::Said;
use super::status::{KubeStatus, WatchStatus};

/// First pause after a failure; it doubles to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause after failures in a row.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause before a kind that the cluster does not know, or that we may not read, is asked for again.
const PAUSE_ABSENT: Duration = Duration::from_mins(1);

/// An object that a watch may be about.
pub(super) trait Watched: Resource + Clone + Debug + DeserializeOwned + Send + 'static {
    /// What is said of one that is there.
    fn said(self) -> Said;
}

impl Watched for Pod {
    fn said(self) -> Said {
        Said::Pod(Box::new(self))
    }
}

impl Watched for Custom {
    fn said(self) -> Said {
        Said::Custom(Box::new(self))
    }
}

/// Where a watch says what it sees, by its own index.
#[derive(Debug, Clone)]
pub(super) struct Mouth {
    /// Index of the watch.
    pub(super) watch: usize,
    /// Who listens.
    pub(super) sink: mpsc::Sender<(usize, Said)>,
}

impl Mouth {
    async fn say(&self, said: Said) {
        if self.sink.send((self.watch, said)).await.is_err() {
            // Nobody listens any more, so we are about to be dropped.
            future::pending::<()>().await;
        }
    }
}

/// Follows what `api` has, without end. With `optional`, a kind that cannot be listed because the cluster does not know
/// it, or that we may not read, counts as empty until it was listed once. From then on a refusal is a failure like others,
/// and what is known stays: a cluster that drops a kind says of each object that it is gone.
pub(super) async fn follow<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
    optional: bool,
    mouth: Mouth,
    all: &KubeStatus,
) {
    let Some(status) = all.watches().get(mouth.watch) else { return };
    let (mut failures, mut listed) = (0, false);
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            let error = match event {
                Ok(event) => {
                    listed |= matches!(event, Event::InitDone);
                    if hear(event, &mouth, status).await {
                        failures = 0;
                    }
                    continue;
                }
                Err(error) => error,
            };
            failures += 1;
            let absent = optional && !listed && is_absent(&error);
            tell(&error, absent, failures, status);
            if absent {
                // An answer too.
                all.heard(mouth.watch);
                mouth.say(Said::Absent).await;
                time::sleep(PAUSE_ABSENT).await;
            } else {
                time::sleep(pause(failures)).await;
            }
            if is_refused_as_old(&error) {
                // The watcher would ask for the same version for ever.
                break;
            }
        }
    }
}

/// Passes an event on; whether the API server has said something.
async fn hear<K: Watched>(event: Event<K>, mouth: &Mouth, status: &WatchStatus) -> bool {
    match event {
        // Comes before the listing is asked for.
        Event::Init => {
            status.listing();
            mouth.say(Said::Begin).await;
            return false;
        }
        Event::InitApply(object) => mouth.say(object.said()).await,
        Event::InitDone => mouth.say(Said::Listed).await,
        Event::Apply(object) => {
            status.event();
            mouth.say(object.said()).await;
        }
        Event::Delete(object) => {
            status.event();
            mouth.say(Said::Gone(Name::of(object.meta()))).await;
        }
    }
    true
}

fn tell(error: &watcher::Error, absent: bool, failures: u32, status: &WatchStatus) {
    let (resource, text) = (status.resource, chain(error));
    if absent {
        if failures == 1 {
            info!(resource, error = text, "not in this cluster, or not for us to read: taken as none");
        }
        return;
    }
    // One that is mended at once is everyday life: history is compacted, servers restart.
    if failures == 2 {
        warn!(resource, error = text, "the API server does not answer as it should; the last known endpoints stay");
    } else {
        debug!(resource, error = text, failures, "watch broken, beginning again");
    }
    status.failed(text);
}

/// The error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The status of an answer that refused a request.
fn refusal(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(_)) && matches!(refusal(error), Some(403 | 404))
}

fn is_refused_as_old(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_)) && refusal(error) == Some(410)
}

/// Doubles, and is spread by a half so that replicas do not come all at once.
fn pause(failures: u32) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    doubled.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (failures, most) in [(1, 100), (2, 200), (6, 3200), (7, 5000), (60, 5000)] {
            let most = Duration::from_millis(most);
            let pause = pause(failures);
            assert!(pause <= most && pause >= most / 2, "{failures}: {pause:?}");
        }
    }
}
