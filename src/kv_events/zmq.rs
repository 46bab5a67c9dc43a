//! Connections to `ZeroMQ` publishers, over TCP, or unix sockets on one machine.
//!
//! A client of our own, for those to be had make as much room for a message as a peer announces, and connect anew by
//! themselves, so that nobody is told what was missed. Here a lost connection is lost, and whoever subscribes does so again.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::transport::{Message, Subscription, Transport, TransportError};
use super::zmtp::{self, Decoder, Fault, GREETING_BYTES, Received};

/// The number of the message that ends a replay.
const END: u64 = u64::MAX;
/// After so long without a word the kernel asks the peer's for a sign of life; twice as long, and it is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Room that is made for each reading.
const READ_BYTES: usize = 16 << 10;

/// Connects to publishers.
#[derive(Debug)]
pub(super) struct Zmq {
    /// Longest wait for a connection, until both sides have greeted.
    pub(super) connect_timeout: Duration,
}

/// Why a connection is of no use.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("the peer closed it")]
    Closed,
    #[error("the peer does not greet in time")]
    Late,
    #[error("it is neither \"tcp://ip:port\" nor \"ipc://path\"")]
    Address,
}

impl From<Broken> for TransportError {
    fn from(broken: Broken) -> Self {
        Self::Lost(broken.to_string())
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Zmq {
    async fn open(&self, address: &str, kind: &str) -> Result<Link, Broken> {
        let opened = timeout(self.connect_timeout, async {
            let stream: Box<dyn Stream> = match (address.strip_prefix("tcp://"), address.strip_prefix("ipc://")) {
                (Some(address), _) => Box::new(keep_alive(TcpStream::connect(address).await?)?),
                (_, Some(path)) => Box::new(UnixStream::connect(path).await?),
                (None, None) => return Err(Broken::Address),
            };
            let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
            let mut link = Link { stream, decoder: Decoder::default(), incoming, outgoing };
            link.shake_hands(kind).await?;
            Ok(link)
        });
        opened.await.unwrap_or(Err(Broken::Late))
    }
}

/// A publisher may say nothing for hours, so one whose machine is gone has to be told from one that has nothing to say.
fn keep_alive(stream: TcpStream) -> io::Result<TcpStream> {
    let signs = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3).with_retries(3);
    SockRef::from(&stream).set_tcp_keepalive(&signs)?;
    Ok(stream)
}

impl Link {
    async fn shake_hands(&mut self, kind: &str) -> Result<(), Broken> {
        self.stream.write_all(&zmtp::greeting()).await?;
        let mut greeting = [0; GREETING_BYTES];
        self.stream.read_exact(&mut greeting).await?;
        zmtp::check_greeting(&greeting)?;
        zmtp::put_ready(kind, &mut self.outgoing);
        self.flush().await?;
        while !matches!(self.receive().await?, Received::Command(name, _) if &*name == b"READY") {}
        Ok(())
    }

    /// Sends what waits. What was sent is remembered if the future is dropped.
    async fn flush(&mut self) -> Result<(), Broken> {
        while !self.outgoing.is_empty() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        Ok(())
    }

    /// The next message or command. Nothing is lost if the future is dropped.
    async fn receive(&mut self) -> Result<Received, Broken> {
        loop {
            if let Some(received) = self.decoder.next(&mut self.incoming)? {
                return Ok(received);
            }
            self.incoming.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(Broken::Closed);
            }
        }
    }

    /// The frames of the next message; signs of life are answered. Nothing is lost if the future is dropped.
    async fn message(&mut self) -> Result<Vec<Bytes>, Broken> {
        loop {
            self.flush().await?;
            match self.receive().await? {
                Received::Message(frames) => return Ok(frames),
                Received::Command(name, body) if &*name == b"PING" => zmtp::put_pong(&body, &mut self.outgoing),
                Received::Command(..) => {}
            }
        }
    }
}

impl Transport for Zmq {
    type Subscription = Link;

    async fn subscribe(&self, address: &str, topic: &str) -> Result<Link, TransportError> {
        let subscribed = async {
            let mut link = self.open(address, "SUB").await?;
            zmtp::put_subscription(topic, &mut link.outgoing);
            link.flush().await?;
            Ok(link)
        };
        let failed =
            |broken: Broken| TransportError::Connect { address: address.to_owned(), reason: broken.to_string() };
        subscribed.await.map_err(failed)
    }

    async fn replay(&self, address: &str, from: u64, sink: mpsc::Sender<Message>) -> Result<(), TransportError> {
        let mut link = self.open(address, "DEALER").await?;
        zmtp::put_message(&[b"", &from.to_be_bytes()], &mut link.outgoing);
        loop {
            let (number, payload) = message(link.message().await?)?;
            // Whoever asked may have lost interest.
            if number == END || sink.send((number, payload)).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Subscription for Link {
    async fn next(&mut self) -> Result<Message, TransportError> {
        message(self.message().await?)
    }
}

/// The last two frames are number and payload; what stands before them differs by version and direction.
fn message(mut frames: Vec<Bytes>) -> Result<Message, TransportError> {
    let shape = TransportError::Shape(frames.len());
    let (Some(payload), Some(number)) = (frames.pop(), frames.pop()) else { return Err(shape) };
    let number = <[u8; 8]>::try_from(&*number).map_err(|_| shape)?;
    Ok((u64::from_be_bytes(number), payload))
}

#[cfg(test)]
#[path = "zmq_tests.rs"]
mod tests;
