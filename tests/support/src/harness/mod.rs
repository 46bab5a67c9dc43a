//! Engines, an `ext_proc` service and a real Envoy as one stack, on free ports and in one folder.
//!
//! Integration tests and the demo start everything through here, so that there is one way to do it.

mod child;
mod config;
mod files;
mod http;
mod launch;
mod stack;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;

pub use child::Child;
pub use config::{find_envoy, quickstart, substitute};
pub use files::Folder;
pub use http::get;
pub use stack::{ExtProc, Stack, StackBuilder};

/// Ports that this process has given to something.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports tried before giving up.
const TRIES: usize = 100;

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);

/// A loopback address that was free a moment ago.
///
/// Its port lies below those that the system gives to outgoing connections (32768 and up), so that none of them takes it
/// before the program that it is for does. No port is given twice.
///
/// # Errors
/// No port can be bound.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..TRIES {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(12_000..32_000)));
        let is_new = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address.port());
        if is_new && TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port on 127.0.0.1")
}

/// Waits until `condition` is true.
///
/// # Errors
/// It is not true in time; the error names `what`.
pub async fn wait_until<F, Answer>(what: &str, deadline: Duration, mut condition: F) -> anyhow::Result<()>
where
    F: FnMut() -> Answer,
    Answer: Future<Output = bool>,
{
    let holds = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(deadline, holds).await.is_err() {
        bail!("{what}: not within {deadline:?}");
    }
    Ok(())
}
