//! No form makes the reader panic, and a cut form never names another model than the whole one.
//! The first byte says where the cut is.
#![no_main]

use fairlead::openai::{Api, head, multipart};
use libfuzzer_sys::fuzz_target;

const TYPE: Option<&str> = Some("multipart/form-data; boundary=X");

fuzz_target!(|data: &[u8]| {
    let Some((place, body)) = data.split_first() else {
        return;
    };
    // The content type comes from outside too.
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = multipart::read(Some(text), b"--X--");
    }
    let whole = multipart::read(TYPE, body);
    let prefix = &body[..body.len() * usize::from(*place) / 256];
    let cut = head::read_cut(Api::AudioTranscriptions, TYPE, prefix);
    if let (Ok(whole), Some(cut)) = (whole, cut) {
        assert_eq!(cut.fault, None);
        assert_eq!(cut.head.model, whole.model);
    }
});
