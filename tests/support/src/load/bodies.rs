//! Request bodies, made before the run so that making them costs the run nothing.

use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value, json};

use super::options::{Api, LoadOptions};

/// Different bodies in all; they repeat after that many requests.
const BODIES_MAX: usize = 4096;
/// Memory for bodies.
const BODY_BYTES_MAX: usize = 64 << 20;

/// One body and what to expect of its answer.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) streamed: bool,
}

/// Makes the bodies of a run: group after group, so that neighbours in time are of different groups.
pub(super) fn prepare(options: &LoadOptions) -> Vec<Body> {
    let mut rng = Rng::with_seed(options.seed);
    let groups = options.groups.max(1);
    let shared = options.shared_prefix_bytes.min(options.prompt_bytes);
    let long = if options.long_share > 0.0 { options.long_prompt_bytes } else { 0 };
    #[expect(clippy::cast_sign_loss, reason = "a size is not negative")]
    let mean = (options.prompt_bytes as f64 + options.long_share * long as f64) as usize;
    let fitting = BODY_BYTES_MAX / (mean + 256);
    let wanted = options.requests.map_or(BODIES_MAX, |requests| usize::try_from(requests).unwrap_or(BODIES_MAX));
    let count = wanted.min(BODIES_MAX).min(fitting).max(1);
    // A long prompt starts with a word of its own, so that no two of them share their blocks.
    let text = words(&mut rng, long);
    let prefixes: Vec<String> = (0..groups).map(|_| words(&mut rng, shared)).collect();
    prefixes
        .iter()
        .cycle()
        .take(count)
        .map(|prefix| {
            let is_long = options.long_share > 0.0 && rng.f64() < options.long_share;
            let prompt = if is_long {
                format!("{}{text}", words(&mut rng, 64))
            } else {
                format!("{prefix}{}", words(&mut rng, options.prompt_bytes - shared))
            };
            let streamed = rng.f64() < options.stream_share;
            let other = rng.usize(..=options.other_models.len());
            let model =
                other.checked_sub(1).and_then(|index| options.other_models.get(index)).unwrap_or(&options.model);
            Body { bytes: Bytes::from(body(options, model, &prompt, streamed).to_string()), streamed }
        })
        .collect()
}

fn body(options: &LoadOptions, model: &str, prompt: &str, streamed: bool) -> Value {
    let mut body = match options.api {
        Api::Chat => {
            json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
        }
        Api::Completion => json!({"model": model, "prompt": prompt}),
    };
    if let Some(fields) = body.as_object_mut() {
        if let Some(limit) = options.tokens_max {
            fields.insert("max_tokens".to_owned(), limit.into());
        }
        if streamed {
            fields.insert("stream".to_owned(), true.into());
        }
    }
    body
}

/// Exactly `bytes` bytes of short random words.
fn words(rng: &mut Rng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        let letters = (bytes - text.len()).min(rng.usize(3..7));
        for _ in 1..letters {
            text.push(rng.lowercase());
        }
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_the_asked_size_and_share_their_groups_prefix() {
        let options = LoadOptions {
            prompt_bytes: 500,
            shared_prefix_bytes: 300,
            groups: 2,
            requests: Some(4),
            ..LoadOptions::default()
        };
        let prompts: Vec<String> = prepare(&options)
            .iter()
            .map(|body| {
                serde_json::from_slice::<Value>(&body.bytes).unwrap()["messages"][0]["content"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(prompts.len(), 4);
        assert!(prompts.iter().all(|prompt| prompt.len() == 500));
        assert_eq!(prompts[0][..300], prompts[2][..300]);
        assert_ne!(prompts[0][..300], prompts[1][..300]);
        assert_ne!(prompts[0][300..], prompts[2][300..]);
    }

    #[test]
    fn long_prompts_and_other_models_come_in_their_share() {
        let options = LoadOptions {
            requests: Some(400),
            long_share: 0.1,
            long_prompt_bytes: 5000,
            other_models: vec!["sql".to_owned()],
            ..LoadOptions::default()
        };
        let bodies = prepare(&options);
        let long = bodies.iter().filter(|body| body.bytes.len() > 5000).count();
        assert!((20..=60).contains(&long), "{long} of 400 are long");
        let other = bodies.iter().filter(|body| body.bytes.windows(5).any(|bytes| bytes == b"\"sql\"")).count();
        assert!((150..250).contains(&other), "{other} of 400 name the adapter");
    }

    #[test]
    fn the_same_seed_makes_the_same_bodies() {
        let options = LoadOptions { requests: Some(3), stream_share: 0.5, ..LoadOptions::default() };
        let bytes = |bodies: Vec<Body>| bodies.into_iter().map(|body| body.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(prepare(&options)), bytes(prepare(&options)));
    }
}
