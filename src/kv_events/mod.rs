//! What engines say of their prefix caches: blocks stored and removed, as they publish it over `ZeroMQ`.
//!
//! | file | what it holds |
//! |---|---|
//! | `msgpack`, `decode` | a payload → events; tolerant of versions, bounded |
//! | `feed` | a publisher's numbering: gaps, doubles, restarts; knows no socket |
//! | `mirror` | events → blocks in the index |
//! | `source` | where an endpoint publishes |
//! | `transport` | what connections do |
//! | `zmtp`, `zmq` | `ZeroMQ`: what goes over the wire, bounded; connections |
//! | `follow` | one publisher: connect, replay, listen, again |
//! | `hub` | all endpoints |
//! | `status` | counts |

mod decode;
mod feed;
mod follow;
mod hub;
mod mirror;
mod msgpack;
mod source;
mod status;
#[cfg(test)]
mod testing;
mod transport;
mod zmq;
mod zmtp;

pub use decode::{Batch, Event, PAYLOAD_BYTES_MAX, Stored, decode};
pub use hub::run;
pub use status::EventStatus;
