//! What the head says, a tree parser says too; what the tree parser accepts is refused for our own
//! reasons only.
#![no_main]

use fairlead::openai::{Api, BodyError, head};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    for api in [Api::Chat, Api::Generate, Api::Messages] {
        let read = head::read(api, None, body);
        let Ok(tree) = serde_json::from_slice::<Value>(body) else {
            continue;
        };
        match read {
            Ok(head) => {
                assert_eq!(head.model.as_deref(), tree["model"].as_str());
                assert_eq!(head.stream, tree["stream"].as_bool().unwrap_or(false));
                if api == Api::Chat {
                    assert_eq!(head.user.as_deref(), tree["user"].as_str());
                    let prompt = head.prompt.map(|raw| serde_json::from_str(raw.get()).unwrap());
                    assert_eq!(prompt.unwrap_or(Value::Null), tree["messages"]);
                }
            }
            Err(error) => assert!(
                matches!(
                    error,
                    BodyError::NotAnObject
                        | BodyError::WrongType { .. }
                        | BodyError::Duplicate { .. }
                        | BodyError::SteeringField(_)
                ),
                "{error}"
            ),
        }
    }
});
