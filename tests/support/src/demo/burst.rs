//! The first burst: plain and streamed requests while one engine refuses connections.

use std::io::Write;
use std::time::Duration;

use crate::engine::{Fault, FaultCommand};
use crate::harness::{Stack, wait_until};
use crate::load::{self, LoadOptions, Pace, Report};

const CONCURRENCY: usize = 16;
/// How long the engine refuses.
const REFUSAL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_mins(1);

/// Sends the burst and shows what came of it.
pub(super) async fn run(stack: &Stack, requests: u64, model: &str, out: &mut impl Write) -> anyhow::Result<Report> {
    writeln!(out, "Sending {requests} requests, half of them streamed.")?;
    out.flush()?;
    let options = LoadOptions {
        url: stack.envoy_url(),
        requests: Some(requests),
        pace: Pace::Closed { concurrency: CONCURRENCY },
        model: model.to_owned(),
        stream_share: 0.5,
        tokens_max: Some(16),
        progress: true,
        ..LoadOptions::default()
    };
    let load = load::run(options);
    let Some(engine) = stack.engines().first() else {
        let report = load.await?;
        report.write_table(out)?;
        return Ok(report);
    };
    // The engine refuses once it has served its share of the first third.
    let threshold = requests / 3 / stack.engines().len() as u64;
    let fault = async {
        wait_until("first third of the burst", DEADLINE, || {
            std::future::ready(engine.counters().completed >= threshold)
        })
        .await?;
        engine.set_fault(FaultCommand { for_ms: Some(REFUSAL.as_millis() as u64), ..Fault::Refuse.into() });
        anyhow::Ok(())
    };
    tokio::pin!(load, fault);
    let mut refused = None;
    let report = loop {
        tokio::select! {
            report = &mut load => break report?,
            outcome = &mut fault, if refused.is_none() => refused = Some(outcome),
        }
    };
    if matches!(refused, Some(Ok(()))) {
        writeln!(out, "In its middle {} refused connections for {REFUSAL:?}.", engine.name())?;
    } else {
        writeln!(out, "{} got too few requests to be switched off in the middle.", engine.name())?;
    }
    report.write_table(out)?;
    for engine in stack.engines() {
        let counters = engine.counters();
        writeln!(
            out,
            "{} ({}) answered {}, {} cut off",
            engine.name(),
            engine.address(),
            counters.completed,
            counters.aborted
        )?;
    }
    Ok(report)
}
