//! How events come: what the rest of this module knows of sockets.

use bytes::Bytes;
use tokio::sync::mpsc;

/// A numbered batch.
pub(super) type Message = (u64, Bytes);

/// Why nothing comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// Nobody answered.
    #[error("cannot connect to \"{address}\": {reason}")]
    Connect {
        /// Where.
        address: String,
        /// The transport's own words.
        reason: String,
    },
    /// The connection ended.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Something came that is no message of events.
    #[error("a message of {0} frames is not one of events")]
    Shape(usize),
}

/// Connections to publishers.
pub(super) trait Transport: Send + Sync {
    /// One that is connected.
    type Subscription: Subscription;

    /// Connects, and subscribes to the messages that begin with `topic`.
    fn subscribe(
        &self,
        address: &str,
        topic: &str,
    ) -> impl Future<Output = Result<Self::Subscription, TransportError>> + Send;

    /// Asks for a replay from a number on, and gives what comes to `sink`. It ends with the mark of the end.
    fn replay(
        &self,
        address: &str,
        from: u64,
        sink: mpsc::Sender<Message>,
    ) -> impl Future<Output = Result<(), TransportError>> + Send;
}

/// A connection on which messages come.
pub(super) trait Subscription: Send {
    /// The next one. After an error the connection is of no use.
    fn next(&mut self) -> impl Future<Output = Result<Message, TransportError>> + Send;
}
