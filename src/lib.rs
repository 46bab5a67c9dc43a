//! Fairlead: an LLM inference router behind Envoy.
//!
//! Two sides. The *hot* side serves `ext_proc` streams, one single-threaded runtime a core: [`ext_proc`] speaks the
//! protocol, [`exchange`] lives one HTTP exchange, [`openai`] reads what it asks, [`routing`] chooses by a snapshot of
//! [`state`]. The *cold* side, one thread, keeps that state true: [`discovery`] and [`scrape`] write it, [`admin`]
//! shows it. [`app`] wires both. [`simulate`] drives the routing on virtual time. Who may use whom is kept by
//! `tests/architecture.rs`.

pub mod admin;
pub mod admission;
pub mod app;
pub mod ask;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod domain;
pub mod exchange;
pub mod ext_proc;
pub mod files;
pub mod index;
pub mod kv_events;
pub mod lookup;
pub mod openai;
pub mod routing;
pub mod scrape;
pub mod simulate;
pub mod state;
pub mod telemetry;
