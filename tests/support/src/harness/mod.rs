//! Engines, an `ext_proc` service and a real Envoy as one stack, on free ports and in one folder.
//!
//! Integration tests and the demo start everything through here, so that there is one way to do it.

mod child;
mod config;
mod files;
mod http;
mod launch;
mod stack;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, bail};

pub use child::Child;
pub use config::{find_envoy, quickstart, substitute};
pub use files::Folder;
pub use http::get;
pub use stack::{ExtProc, Stack, StackBuilder};

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);

/// A loopback address that was free a moment ago.
///
/// # Errors
/// No port can be bound.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?)
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
