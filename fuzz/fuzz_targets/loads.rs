//! Whatever `/v1/loads` answers, no signal is one that cannot be, and an answer that is read is an object with `loads`.
#![no_main]

use fairlead::domain::Gauge;
use fairlead::scrape::loads::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Some(gauges) = read(body) else {
        return;
    };
    assert!(!gauges.is_empty());
    // What nobody wants of it is passed over: text that is none, numbers too large for any. A tree parser refuses those.
    if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(body) {
        assert!(tree["loads"].as_array().is_some_and(|ranks| !ranks.is_empty()), "what was read has loads");
    }
    for gauge in Gauge::ALL {
        let Some(value) = gauges.get(gauge) else {
            continue;
        };
        assert!(value.is_finite() && value >= 0.0, "{}: {value}", gauge.name());
        assert!(gauge.unit() != "share" || value <= 1.0, "{}: {value}", gauge.name());
    }
});
