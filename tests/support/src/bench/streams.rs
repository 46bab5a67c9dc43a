//! Memory while many answers stream at once.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::BenchArgs;
use super::rig::{FAIRLEAD, admin_url, memory_kib, start_envoy, start_fairlead};
use super::way::Way;
use crate::engine::{Capacity, Engine, EngineOptions, Timing};
use crate::harness::{Folder, find_envoy, get, wait_until};
use crate::load::{LoadOptions, Pace, run as load};

const ENGINES: usize = 4;
const DEADLINE: Duration = Duration::from_mins(1);

/// What the streams cost.
#[derive(Debug, Serialize)]
pub(super) struct Streams {
    /// Streams that Fairlead counted in flight at once.
    pub(super) in_flight: u64,
    /// Resident memory of Fairlead before, in KiB.
    pub(super) before_kib: u64,
    /// And with all streams open.
    pub(super) open_kib: u64,
    /// Requests in flight after the last one ended.
    pub(super) left_in_flight: u64,
    /// Requests that failed.
    pub(super) failed: u64,
}

/// Opens the streams against engines that answer slowly, and looks at Fairlead meanwhile and afterwards.
pub(super) async fn measure(args: &BenchArgs) -> anyhow::Result<Streams> {
    let folder = Folder::temporary()?;
    let own = std::env::current_exe()?;
    let timing = Timing { step: Duration::from_millis(300), ..Timing::quick() };
    let capacity = Capacity { sequences_max: 4096, step_tokens_max: 1 << 20, kv_blocks: 1 << 20, queue_max: 4096 };
    let mut engines = Vec::new();
    let mut endpoints = String::new();
    for number in 0..ENGINES {
        let name = format!("engine-{number}");
        let engine = Engine::start(EngineOptions { name, timing, capacity, ..EngineOptions::default() }).await?;
        writeln!(endpoints, "- {{ address: \"{}\", models: [llama-3-8b] }}", engine.address())?;
        engines.push(engine);
    }
    folder.write("endpoints.yaml", &endpoints)?;
    let fairlead = start_fairlead(args.fairlead.as_deref(), &own, &folder, "", &[]).await?;
    let admin = admin_url(&folder)?;
    let text = std::fs::read_to_string(args.envoy_configs.join("quickstart.yaml"))?;
    let envoy = find_envoy(args.envoy.as_deref())?;
    let (_envoy, address) = start_envoy(&envoy, &text, Way::Unix(FAIRLEAD), &folder, "streams").await?;
    let before_kib = memory_kib(fairlead.id());
    let options = LoadOptions {
        url: format!("http://{address}"),
        pace: Pace::Closed { concurrency: args.streams },
        requests: Some(args.streams as u64),
        tokens_max: Some(60),
        stream_share: 1.0,
        timeout: DEADLINE,
        ..LoadOptions::default()
    };
    let peak = async {
        let (mut in_flight, mut open_kib) = (0, 0);
        while in_flight < args.streams as u64 {
            let now = in_flight_at(&admin).await;
            if now >= in_flight {
                (in_flight, open_kib) = (now, memory_kib(fairlead.id()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (in_flight, open_kib)
    };
    let (report, peak) = tokio::join!(Box::pin(load(options)), tokio::time::timeout(DEADLINE, peak));
    let (in_flight, open_kib) = peak.context("the streams were not all open at once")?;
    let settled = || async { in_flight_at(&admin).await == 0 };
    // What is left is part of the result.
    wait_until("streams to end", Duration::from_secs(10), settled).await.ok();
    let left_in_flight = in_flight_at(&admin).await;
    Ok(Streams { in_flight, before_kib, open_kib, left_in_flight, failed: report?.failed })
}

async fn in_flight_at(admin: &str) -> u64 {
    let Ok((200, text)) = get(&format!("{admin}/api/endpoints")).await else { return 0 };
    let page: Value = serde_json::from_str(&text).unwrap_or_default();
    let endpoints = page.get("endpoints").and_then(Value::as_array);
    endpoints.into_iter().flatten().filter_map(|endpoint| endpoint.get("in_flight")?.as_u64()).sum()
}
