//! Whatever `/v1/loads` answers, no signal is one that cannot be, and an answer that is read is an object with `loads`.
#![no_main]

use fairlead::domain::Gauge;
use fairlead::scrape::loads::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(gauges) = read(body) else {
        return;
    };
    let tree: serde_json::Value = serde_json::from_slice(body).expect("what was read is JSON");
    let ranks = tree["loads"].as_array().expect("what was read has loads");
    assert!(!ranks.is_empty() && !gauges.is_empty());
    for gauge in Gauge::ALL {
        let Some(value) = gauges.get(gauge) else {
            continue;
        };
        assert!(value.is_finite() && value >= 0.0, "{}: {value}", gauge.name());
        assert!(gauge.unit() != "share" || value <= 1.0, "{}: {value}", gauge.name());
    }
});
