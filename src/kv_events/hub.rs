//! The one task that follows all endpoints' events.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{self, MissedTickBehavior, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::ask::Asker;
use crate::config::KvEvents;
use crate::domain::{Clock, EndpointId};
use crate::index::HeldIndex;
use crate::state::{Endpoint, Reader};

use super::follow::follow;
use super::mirror::Mirror;
use super::source::{self, Source};
use super::status::EventStatus;
use super::zmq::Zmq;

/// How often new endpoints are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How often what is expected but not confirmed is looked through.
const UPKEEP: Duration = Duration::from_secs(1);
/// How long an engine may take to say where it publishes.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an engine is asked that did not say, or said nowhere.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How often an engine is asked that is followed.
const ASK_WHETHER_MOVED: Duration = Duration::from_mins(1);
/// Largest answer to that.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Everything that following needs.
struct Hub {
    index: Arc<HeldIndex>,
    config: KvEvents,
    status: Arc<EventStatus>,
    asker: Asker,
    transport: Zmq,
}

/// Follows the events of all endpoints that `reader` shows, until `cancel` fires. An endpoint that leaves is forgotten.
pub async fn run(
    reader: Reader,
    index: Arc<HeldIndex>,
    config: KvEvents,
    clock: Clock,
    status: Arc<EventStatus>,
    cancel: CancellationToken,
) {
    let transport = Zmq { connect_timeout: config.connect_timeout };
    let hub = &Hub { index, config, status, asker: Asker::new(ANSWER_BYTES_MAX), transport };
    let mut followed: HashMap<EndpointId, (Arc<Endpoint>, CancellationToken)> = HashMap::new();
    let mut following = FuturesUnordered::new();
    let (mut look, mut upkeep) = (time::interval(LOOK), time::interval(UPKEEP));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut version = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            Some(()) = following.next() => {}
            _ = upkeep.tick() => hub.index.upkeep(clock.now()),
            _ = look.tick() => {
                let snapshot = reader.load();
                if version.replace(snapshot.version()) == Some(snapshot.version()) {
                    continue;
                }
                followed.retain(|id, (known, stop)| {
                    let now = snapshot.at(known.spec.address).filter(|endpoint| endpoint.id == *id);
                    if now.is_none() {
                        hub.index.forget(*id);
                    }
                    // Its labels say where it publishes.
                    let stays = now.is_some_and(|now| now.spec.labels == known.spec.labels);
                    if !stays {
                        stop.cancel();
                    }
                    stays
                });
                for endpoint in snapshot.endpoints() {
                    if !followed.contains_key(&endpoint.id) && source::is_wanted(&endpoint.spec) {
                        let stop = cancel.child_token();
                        followed.insert(endpoint.id, (Arc::clone(endpoint), stop.clone()));
                        following.push(hub.follow_endpoint(Arc::clone(endpoint), stop));
                    }
                }
            }
        }
    }
}

impl Hub {
    async fn follow_endpoint(&self, endpoint: Arc<Endpoint>, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut sources = self.sources(&endpoint).await;
            loop {
                let following = async {
                    join_all(sources.iter().map(|source| self.follow_source(&endpoint, source))).await;
                    pending().await
                };
                sources = tokio::select! {
                    moved = self.moved(&endpoint, &sources) => moved,
                    never = following => never,
                };
            }
        })
        .await;
    }

    /// Where an engine publishes once it says that it does so elsewhere, as after a restart with other options.
    async fn moved(&self, endpoint: &Endpoint, from: &[Source]) -> Vec<Source> {
        loop {
            sleep(ASK_WHETHER_MOVED.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            match self.told_sources(endpoint.spec.address).await {
                Some(sources) if !sources.is_empty() && sources != from => return sources,
                _ => {}
            }
        }
    }

    async fn follow_source(&self, endpoint: &Endpoint, source: &Source) {
        if let Some(row) = self.index.open(endpoint.id) {
            let mut mirror = Mirror::new(row, Arc::clone(&self.status));
            follow(&self.transport, source, &mut mirror, &self.status).await;
        }
    }

    /// Where an endpoint publishes; asks until there is an answer. Not every engine can be asked: then labels and
    /// configuration count.
    async fn sources(&self, endpoint: &Endpoint) -> Vec<Source> {
        loop {
            let told = self.told_sources(endpoint.spec.address).await;
            let sources = told.unwrap_or_else(|| source::assumed(&endpoint.spec, &self.config));
            if !sources.is_empty() {
                return sources;
            }
            debug!(endpoint = endpoint.address_text(), "publishes no KV events");
            sleep(ASK_AGAIN.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn told_sources(&self, engine: SocketAddr) -> Option<Vec<Source>> {
        let ask = async |path| {
            let asked = timeout(ASK_TIMEOUT, self.asker.get(engine, path)).await;
            asked.ok().and_then(Result::ok)
        };
        if let Some(answer) = ask("/kv_event_sources").await {
            return source::of_vllm(&answer, engine.ip());
        }
        source::of_sglang(&ask("/server_info").await?, engine.ip())
    }
}
