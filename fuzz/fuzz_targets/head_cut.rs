//! The head of a cut body never contradicts the head of the whole body. The first byte says where
//! the cut is.
#![no_main]

use fairlead::openai::{Api, head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((place, body)) = data.split_first() else {
        return;
    };
    let prefix = &body[..body.len() * usize::from(*place) / 256];
    let Some(cut) = head::read_cut(Api::Chat, None, prefix) else {
        return;
    };
    match head::read(Api::Chat, None, body) {
        Ok(whole) => {
            assert_eq!(cut.fault, None);
            assert_eq!(cut.head.model, whole.model);
            assert!(cut.head.user.is_none() || cut.head.user == whole.user);
            assert!(cut.head.n.is_none() || cut.head.n == whole.n);
            let prompts = (cut.head.prompt, whole.prompt);
            assert!(prompts.0.is_none() || prompts.0.map(|p| p.get()) == prompts.1.map(|p| p.get()));
        }
        Err(error) => assert!(cut.fault.is_none() || cut.fault.is_some_and(|f| f.status() == error.status())),
    }
});
