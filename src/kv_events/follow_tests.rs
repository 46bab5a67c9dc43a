//! A real publisher on loopback that is killed and comes back.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use super::*;
use crate::domain::EndpointId;
use crate::index::{HeldIndex, TokenPrompt};
use crate::kv_events::mirror::Mirror;
use crate::kv_events::testing::Pack;
use crate::kv_events::zmq::Zmq;

const ID: EndpointId = EndpointId { slot: 0, generation: 0 };
const LIMIT: Duration = Duration::from_secs(30);

/// An engine that publishes.
struct Publisher {
    socket: PubSocket,
    address: String,
    number: u64,
    /// What it could repeat.
    log: VecDeque<(u64, Vec<u8>)>,
}

impl Publisher {
    async fn at(address: &str) -> Self {
        let mut socket = PubSocket::new();
        // A former one may hold the port for a moment longer.
        let bound = timeout(LIMIT, async {
            loop {
                match socket.bind(address).await {
                    Ok(bound) => break bound.to_string(),
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let address = bound.await.unwrap();
        Self { socket, address, number: 0, log: VecDeque::new() }
    }

    /// The next batch: blocks of two tokens.
    fn note(&mut self, parent: Option<u64>, keys: &[u64], tokens: &[u64]) -> ZmqMessage {
        let mut pack = Pack::batch(1);
        pack.stored(parent, keys, tokens);
        let (number, payload) = (self.number, pack.rank(0));
        self.number += 1;
        self.log.push_back((number, payload.clone()));
        frames(&[b"kv", &number.to_be_bytes(), &payload])
    }

    async fn publish(&mut self, parent: Option<u64>, keys: &[u64], tokens: &[u64]) {
        let message = self.note(parent, keys, tokens);
        self.socket.send(message).await.unwrap();
    }
}

fn frames(parts: &[&[u8]]) -> ZmqMessage {
    let parts: Vec<Bytes> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
    ZmqMessage::try_from(parts).unwrap()
}

/// Answers one request for a replay.
async fn answer_replay(router: &mut RouterSocket, log: &VecDeque<(u64, Vec<u8>)>) -> u64 {
    let asked = router.recv().await.unwrap().into_vec();
    let (who, from) = (asked[0].clone(), u64::from_be_bytes(asked[2][..].try_into().unwrap()));
    for (number, payload) in log.iter().filter(|(number, _)| *number >= from) {
        router.send(frames(&[&who, b"", b"kv", &number.to_be_bytes(), payload])).await.unwrap();
    }
    router.send(frames(&[&who, b"", b"", &u64::MAX.to_be_bytes(), b""])).await.unwrap();
    from
}

fn held(index: &HeldIndex, tokens: &[u32]) -> u32 {
    // The last token is never cached.
    let tokens = [tokens, &[0]].concat();
    index.look_up(&TokenPrompt { tokens: &tokens, adapter: None, salt: None }).or_guess(ID, 0)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what} within {LIMIT:?}"));
}

/// Follows `source` while a story runs.
async fn following<F: Future<Output = ()>>(source: Source, story: impl FnOnce(Arc<HeldIndex>, Arc<EventStatus>) -> F) {
    let (index, status) = (HeldIndex::new(16 << 20, LIMIT), Arc::new(EventStatus::default()));
    let mut mirror = Mirror::new(index.open(ID).unwrap(), Arc::clone(&status));
    let transport = Zmq { connect_timeout: Duration::from_secs(1) };
    tokio::select! {
        () = follow(&transport, &source, &mut mirror, &status) => panic!("it ended"),
        () = story(Arc::clone(&index), Arc::clone(&status)) => {}
    }
}

fn source(publisher: &Publisher, replay: Option<String>) -> Source {
    Source { address: publisher.address.clone(), replay, topic: "k".to_owned() }
}

#[tokio::test]
async fn a_publisher_that_is_killed_and_comes_back_is_followed_again() {
    let mut publisher = Publisher::at("tcp://127.0.0.1:0").await;
    Box::pin(following(source(&publisher, None), async |index, status| {
        for life in 1..=2 {
            let (mut tries, heard) = (0, || held(&index, &[10, 11, 12, 13]) == 4);
            while !heard() {
                publisher.publish(None, &[1, 2], &[10, 11, 12, 13]).await;
                sleep(Duration::from_millis(20)).await;
                tries += 1;
                assert!(tries < 1000, "life {life}: nothing is heard");
            }
            let address = publisher.address.clone();
            drop(publisher);
            until("the loss is noticed", || held(&index, &[10, 11]) == 0 && status.losses() == life).await;
            assert_eq!(index.complete_rows(), 0);
            publisher = Publisher::at(&address).await;
        }
    }))
    .await;
}

#[tokio::test]
async fn what_was_missed_is_asked_for() {
    let mut publisher = Publisher::at("tcp://127.0.0.1:0").await;
    let mut router = RouterSocket::new();
    let replay = router.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
    // Published before anybody listens.
    publisher.publish(None, &[1, 2], &[10, 11, 12, 13]).await;
    Box::pin(following(source(&publisher, Some(replay)), async |index, status| {
        assert_eq!(timeout(LIMIT, answer_replay(&mut router, &publisher.log)).await.unwrap(), 0);
        until("the first replay", || held(&index, &[10, 11, 12, 13]) == 4 && index.complete_rows() == 1).await;
        // One message is lost on the way; the next tells that.
        drop(publisher.note(Some(2), &[3], &[14, 15]));
        publisher.publish(Some(3), &[4], &[16, 17]).await;
        assert_eq!(timeout(LIMIT, answer_replay(&mut router, &publisher.log)).await.unwrap(), 1);
        let all: Vec<u32> = (10..18).collect();
        until("the second replay", || held(&index, &all) == 8).await;
        assert_eq!((index.complete_rows(), status.gaps(), status.replays.load(Relaxed)), (1, 0, 2));
    }))
    .await;
}
