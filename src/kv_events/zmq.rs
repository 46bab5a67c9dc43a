//! `ZeroMQ`, in the crate `zeromq`: the one file that knows it.
//!
//! Its sockets connect anew by themselves, but nobody would be told what was missed meanwhile. So a lost connection is
//! taken as lost, and whoever subscribes does so again.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use zeromq::{DealerSocket, Socket, SocketEvent, SocketOptions, SocketRecv, SocketSend, SubSocket, ZmqMessage};

use super::transport::{Message, Subscription, Transport, TransportError};

/// The number of the message that ends a replay.
const END: u64 = u64::MAX;

/// Connects over TCP, or unix sockets on one machine.
#[derive(Debug)]
pub(super) struct Zmq {
    /// Longest wait for a connection.
    pub(super) connect_timeout: Duration,
}

impl Zmq {
    fn options(&self) -> SocketOptions {
        let mut options = SocketOptions::default();
        options.connect_timeout(self.connect_timeout);
        options
    }
}

pub(super) struct Subscribed {
    socket: SubSocket,
    /// What the socket says of its connection.
    happenings: BoxStream<'static, SocketEvent>,
}

impl Transport for Zmq {
    type Subscription = Subscribed;

    async fn subscribe(&self, address: &str, topic: &str) -> Result<Subscribed, TransportError> {
        let mut socket = SubSocket::with_options(self.options());
        let happenings = socket.monitor().boxed();
        let failed = |error: zeromq::ZmqError| TransportError::Connect {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        socket.subscribe(topic).await.map_err(failed)?;
        socket.connect(address).await.map_err(failed)?;
        Ok(Subscribed { socket, happenings })
    }

    async fn replay(&self, address: &str, from: u64, sink: mpsc::Sender<Message>) -> Result<(), TransportError> {
        let lost = |error: zeromq::ZmqError| TransportError::Lost(error.to_string());
        let mut socket = DealerSocket::with_options(self.options());
        socket.connect(address).await.map_err(lost)?;
        let mut request = ZmqMessage::from(Bytes::new());
        request.push_back(Bytes::copy_from_slice(&from.to_be_bytes()));
        socket.send(request).await.map_err(lost)?;
        loop {
            let (number, payload) = message(socket.recv().await.map_err(lost)?)?;
            // Whoever asked may have lost interest.
            if number == END || sink.send((number, payload)).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Subscription for Subscribed {
    async fn next(&mut self) -> Result<Message, TransportError> {
        loop {
            tokio::select! {
                received = self.socket.recv() => {
                    return message(received.map_err(|error| TransportError::Lost(error.to_string()))?);
                }
                happening = self.happenings.next() => match happening {
                    Some(SocketEvent::Disconnected(_)) => {
                        return Err(TransportError::Lost("the publisher closed it".to_owned()));
                    }
                    Some(_) => {}
                    None => return Err(TransportError::Lost("the socket is gone".to_owned())),
                },
            }
        }
    }
}

/// The last two frames are number and payload; what stands before them differs by version and direction.
fn message(frames: ZmqMessage) -> Result<Message, TransportError> {
    let mut frames = frames.into_vec();
    let shape = TransportError::Shape(frames.len());
    let (Some(payload), Some(number)) = (frames.pop(), frames.pop()) else { return Err(shape) };
    let number = <[u8; 8]>::try_from(&*number).map_err(|_| shape)?;
    Ok((u64::from_be_bytes(number), payload))
}
