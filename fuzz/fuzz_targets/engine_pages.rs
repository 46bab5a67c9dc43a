//! Two pages of one engine, one after the other: whatever they say, no signal is one that cannot be. The first byte
//! chooses the engine, the next two say where the second page begins.
#![no_main]

use std::time::Duration;

use fairlead::domain::{Gauge, GaugeSet, Gauges, Moment};
use fairlead::scrape::engines::{self, ENGINES};
use fairlead::scrape::lens::Lens;
use fairlead::scrape::reading::Reading;
use fairlead::scrape::windows::Windows;
use libfuzzer_sys::fuzz_target;

const WINDOW: Duration = Duration::from_secs(30);

fuzz_target!(|data: &[u8]| {
    let [engine, high, low, pages @ ..] = data else {
        return;
    };
    let engine = ENGINES[usize::from(*engine) % ENGINES.len()];
    let (first, second) = pages.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(pages.len()));
    let lens = Lens::of(engine, GaugeSet::ALL);
    let (mut reading, mut windows) = (Reading::default(), Windows::over(WINDOW));
    let _ = engines::recognise(pages);
    for (page, seconds) in [(first, 1), (second, 11), (first, 21)] {
        let report = reading.read(page, &lens);
        let lines = page.split(|byte| *byte == b'\n').count();
        assert!(report.samples + report.unreadable_lines <= lines);
        let mut gauges = reading.levels(&lens);
        windows.take(&reading, &lens, Moment::EPOCH + Duration::from_secs(seconds));
        windows.derive(&lens, &mut gauges);
        check(&gauges);
    }
    // What was read before leaves no trace.
    let mut fresh = Reading::default();
    fresh.read(first, &lens);
    assert_eq!(fresh.levels(&lens), reading.levels(&lens));
});

fn check(gauges: &Gauges) {
    for gauge in Gauge::ALL {
        let Some(value) = gauges.get(gauge) else {
            continue;
        };
        assert!(value.is_finite() && value >= 0.0, "{}: {value}", gauge.name());
        assert!(gauge.unit() != "share" || value <= 1.0, "{}: {value}", gauge.name());
    }
}
