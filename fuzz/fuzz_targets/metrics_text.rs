//! Every line of a page is a sample, unreadable, or nothing; labels of a sample can be read.
#![no_main]

use fairlead::scrape::text::scan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    let mut samples = 0;
    let report = scan(page, |sample| {
        samples += 1;
        assert!(!sample.name.is_empty());
        for (name, _) in sample.labels.iter() {
            assert!(!name.is_empty());
            // Names that are not UTF-8 are shown with U+FFFD and can't be asked for.
            assert!(name.contains('\u{fffd}') || sample.labels.get(&name).is_some());
        }
    });
    assert_eq!(report.samples, samples);
    let lines = page.split(|byte| *byte == b'\n').count();
    assert!(report.samples + report.unreadable_lines <= lines);
});
