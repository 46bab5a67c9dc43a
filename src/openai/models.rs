//! The `/v1/models` pages, in `OpenAI`'s shape.

use serde::{Serialize, Serializer};

/// One model or adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelCard<'a> {
    /// The name that requests use.
    pub id: &'a str,
    /// The base model, if this is an adapter.
    pub parent: Option<&'a str>,
    /// When it became known, in seconds of Unix time.
    pub created: u64,
}

impl Serialize for ModelCard<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Card<'a> {
            id: &'a str,
            object: &'static str,
            created: u64,
            owned_by: &'static str,
            root: &'a str,
            parent: Option<&'a str>,
        }
        let card = Card {
            id: self.id,
            object: "model",
            created: self.created,
            owned_by: "fairlead",
            root: self.parent.unwrap_or(self.id),
            parent: self.parent,
        };
        card.serialize(serializer)
    }
}

/// The body of `GET /v1/models`.
pub fn list<'a>(cards: impl Iterator<Item = ModelCard<'a>>) -> Vec<u8> {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<ModelCard<'a>>,
    }
    bytes(&List { object: "list", data: cards.collect() })
}

/// The body of `GET /v1/models/{id}`.
pub fn card(card: ModelCard<'_>) -> Vec<u8> {
    bytes(&card)
}

/// Strings and numbers always serialise.
fn bytes(page: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(page).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_the_shape_that_openai_clients_read() {
        let base = ModelCard { id: "org/base \"1\"", parent: None, created: 7 };
        let adapter = ModelCard { id: "sql", parent: Some("base"), created: 8 };
        assert_eq!(
            String::from_utf8(list([base, adapter].into_iter())).unwrap(),
            r#"{"object":"list","data":[{"id":"org/base \"1\"","object":"model","created":7,"owned_by":"fairlead","root":"org/base \"1\"","parent":null},{"id":"sql","object":"model","created":8,"owned_by":"fairlead","root":"base","parent":"base"}]}"#
        );
        assert!(card(adapter).starts_with(br#"{"id":"sql","object":"model""#));
    }
}
