//! The strategies that go by prefixes against what their users have today.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../examples/league/aibrix.rs"]
mod aibrix;

use std::ffi::OsString;

use fairlead::cli::{Action, parse};
use fairlead::simulate::{self, Cell, Chooser};

const AIBRIX: &str = "aibrix";

fn cells(line: &str) -> Vec<Cell> {
    let words = ["fairlead", "simulate"].into_iter().chain(line.split_whitespace());
    let Action::Simulate(options) = parse(words.map(OsString::from)).unwrap() else { panic!("{line}") };
    let mut sweep = simulate::sweep(&options).unwrap();
    sweep.choosers.push(Chooser::Contender { name: AIBRIX, build: aibrix::PrefixCache::build });
    sweep.run(|_, _, _| {}).unwrap()
}

#[test]
fn first_tokens_come_no_later_than_with_aibrix_on_any_workload() {
    let cells = cells(
        "--workload shared-prefix-chat,conversation,code-generation,reasoning,bursts,tenants,adapters --load 0.8 \
         --requests 3000 --strategy prefix-cache --no-oracle",
    );
    for pair in cells.chunks(2) {
        let [ours, theirs] = pair else { panic!("{pair:?}") };
        assert!(theirs.strategy == AIBRIX && theirs.workload == ours.workload);
        let (ours, theirs) = (&ours.summary, &theirs.summary);
        assert!(ours.e2e_ms.mean < 1.05 * theirs.e2e_ms.mean, "{}: {ours:?}, {theirs:?}", pair[0].workload);
        assert!(ours.ttft_ms.p90 < 1.02 * theirs.ttft_ms.p90, "{}: {ours:?}, {theirs:?}", pair[0].workload);
    }
}

#[test]
fn the_baseline_finds_prefixes_and_keeps_to_its_guard() {
    let cells = cells("--workload conversation --load 0.6 --requests 3000 --strategy least-request --no-oracle");
    let [least, baseline] = &cells[..] else { panic!("{cells:?}") };
    assert!(baseline.summary.hit_rate > 2.0 * least.summary.hit_rate, "{cells:#?}");
    assert!(baseline.summary.spread < 1.0);
}
