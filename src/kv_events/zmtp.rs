//! What goes over the wire of `ZeroMQ`: ZMTP 3.0 without security, as far as a subscriber and a dealer need it. No I/O.
//!
//! A length that the peer announces makes no room: what waits is as long as what came, and there is a longest message.

use bytes::{Buf as _, Bytes, BytesMut};

use super::decode::PAYLOAD_BYTES_MAX;

/// Length of the greeting.
pub(super) const GREETING_BYTES: usize = 64;
/// Longest message, all frames together: the longest payload, and some room for topic and number.
pub(super) const MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);
/// Frames of one message at most.
const FRAMES_MAX: usize = 64;

/// Flags of a frame.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a peer is not listened to any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Another protocol, or one that is too old.
    #[error("the peer does not speak ZMTP 3")]
    Protocol,
    /// It wants to know who we are.
    #[error("the peer asks for security \"{0}\", and there is none here")]
    Mechanism(String),
    /// Too long, or in too many frames.
    #[error("a message of {bytes} bytes or more in {frames} frames; {MESSAGE_BYTES_MAX} in {FRAMES_MAX} are the most")]
    TooLong {
        /// Bytes so far, and of the frame that is announced.
        bytes: u64,
        /// Frames so far, and that one.
        frames: usize,
    },
    /// No name.
    #[error("a command without a name")]
    Command,
    /// Its own words.
    #[error("the peer refuses us: \"{0}\"")]
    Refused(String),
}

/// What a peer sends once both have greeted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    /// The frames of a message, at least one.
    Message(Vec<Bytes>),
    /// Name and the rest of a command.
    Command(Bytes, Bytes),
}

/// The greeting: version 3.0, no security, a client.
pub(super) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    let parts: [(usize, &[u8]); 4] = [(0, &[0xff]), (9, &[0x7f]), (10, &[3, 0]), (12, b"NULL")];
    for (at, part) in parts {
        bytes.iter_mut().skip(at).zip(part).for_each(|(byte, value)| *byte = *value);
    }
    bytes
}

/// Whether a peer's greeting is one that we can answer.
///
/// # Errors
/// If it is none, of an older protocol, or wants security.
pub(super) fn check_greeting(greeting: &[u8; GREETING_BYTES]) -> Result<(), Fault> {
    let [0xff, _, _, _, _, _, _, _, _, 0x7f, version, _, rest @ ..] = greeting else { return Err(Fault::Protocol) };
    let mechanism: Vec<u8> = rest.iter().copied().take(20).take_while(|byte| *byte != 0).collect();
    match mechanism.as_slice() {
        _ if *version < 3 => Err(Fault::Protocol),
        b"NULL" => Ok(()),
        other => Err(Fault::Mechanism(String::from_utf8_lossy(other).into_owned())),
    }
}

/// Tells the peer what kind of socket this is.
pub(super) fn put_ready(kind: &str, out: &mut BytesMut) {
    let mut body = property("Socket-Type", kind.as_bytes());
    body.extend(property("Identity", b""));
    put_command("READY", &body, out);
}

/// Answers a sign of life.
pub(super) fn put_pong(ping: &[u8], out: &mut BytesMut) {
    // Two bytes say how long the peer waits; of the rest at most 16 bytes are repeated to it.
    let context: Vec<u8> = ping.iter().copied().skip(2).take(16).collect();
    put_command("PONG", &context, out);
}

/// Subscribes to messages that begin with `topic`.
pub(super) fn put_subscription(topic: &str, out: &mut BytesMut) {
    put_message(&[&[b"\x01", topic.as_bytes()].concat()], out);
}

/// A message.
pub(super) fn put_message(frames: &[&[u8]], out: &mut BytesMut) {
    for (left, frame) in (0..frames.len()).rev().zip(frames) {
        put_frame(if left > 0 { MORE } else { 0 }, frame, out);
    }
}

fn put_command(name: &str, body: &[u8], out: &mut BytesMut) {
    put_frame(COMMAND, &[&[name.len() as u8], name.as_bytes(), body].concat(), out);
}

fn property(name: &str, value: &[u8]) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes(), &(value.len() as u32).to_be_bytes(), value].concat()
}

fn put_frame(flags: u8, body: &[u8], out: &mut BytesMut) {
    if let Ok(length) = u8::try_from(body.len()) {
        out.extend_from_slice(&[flags, length]);
    } else {
        out.extend_from_slice(&[flags | LONG]);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(body);
}

/// Cuts what comes into messages and commands.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Of the message that is not complete.
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Decoder {
    /// Takes the next message or command off `buffer`; `None` if more has to come first.
    ///
    /// # Errors
    /// What comes cannot be read or is too long, as soon as that is announced. There is no going on after that.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, Fault> {
        loop {
            let Some((flags, header, length)) = head(buffer) else { return Ok(None) };
            let (bytes, frames) = (length.saturating_add(self.bytes as u64), self.frames.len() + 1);
            if bytes > MESSAGE_BYTES_MAX as u64 || frames > FRAMES_MAX {
                return Err(Fault::TooLong { bytes, frames });
            }
            // It is below the cap, so it is a length of this machine.
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if buffer.len() - header < length {
                return Ok(None);
            }
            buffer.advance(header);
            let body = buffer.split_to(length).freeze();
            if flags & COMMAND != 0 {
                return command(body).map(Some);
            }
            self.bytes += body.len();
            self.frames.push(body);
            if flags & MORE == 0 {
                self.bytes = 0;
                return Ok(Some(Received::Message(std::mem::take(&mut self.frames))));
            }
        }
    }
}

/// Flags of the next frame, and lengths of its head and its body.
fn head(buffer: &BytesMut) -> Option<(u8, usize, u64)> {
    let flags = *buffer.first()?;
    if flags & LONG == 0 {
        return Some((flags, 2, u64::from(*buffer.get(1)?)));
    }
    let length = <[u8; 8]>::try_from(buffer.get(1..9)?).ok()?;
    Some((flags, 9, u64::from_be_bytes(length)))
}

fn command(mut body: Bytes) -> Result<Received, Fault> {
    let length = body.first().map_or(0, |length| usize::from(*length));
    if length == 0 || body.len() < 1 + length {
        return Err(Fault::Command);
    }
    body.advance(1);
    let name = body.split_to(length);
    if &*name != b"ERROR" {
        return Ok(Received::Command(name, body));
    }
    // One byte says how long the words are.
    Err(Fault::Refused(String::from_utf8_lossy(body.get(1..).unwrap_or_default()).into_owned()))
}

#[cfg(test)]
#[path = "zmtp_tests.rs"]
mod tests;
