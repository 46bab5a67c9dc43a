//! `LoRA` adapters: those that are loaded, and the two paths that change them.

use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use serde_json::Value;

/// Adapters at once; more are refused.
const ADAPTERS_MAX: usize = 10_000;

/// The names that requests may use besides the served models.
#[derive(Debug)]
pub(super) struct Adapters(Mutex<Vec<String>>);

/// Why a load or unload is refused: status, vLLM's type, message.
pub(super) type Refused = (StatusCode, &'static str, String);

impl Adapters {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(Mutex::new(names))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == name)
    }

    /// `POST /v1/load_lora_adapter`.
    pub(super) fn load(&self, body: &[u8]) -> Result<String, Refused> {
        let name = name(body)?;
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(&name) || names.len() >= ADAPTERS_MAX {
            let message = format!("The lora adapter '{name}' has already been loaded.");
            return Err((StatusCode::BAD_REQUEST, "InvalidUserInput", message));
        }
        names.push(name.clone());
        Ok(format!("Success: LoRA adapter '{name}' added successfully."))
    }

    /// `POST /v1/unload_lora_adapter`.
    pub(super) fn unload(&self, body: &[u8]) -> Result<String, Refused> {
        let name = name(body)?;
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = names.len();
        names.retain(|known| *known != name);
        if names.len() == before {
            let message = format!("The lora adapter '{name}' cannot be found.");
            return Err((StatusCode::NOT_FOUND, "NotFoundError", message));
        }
        Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
    }
}

fn name(body: &[u8]) -> Result<String, Refused> {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let name = body.as_ref().and_then(|body| body.get("lora_name")?.as_str()).filter(|name| !name.is_empty());
    let missing = || (StatusCode::BAD_REQUEST, "InvalidUserInput", "'lora_name' must be given.".to_owned());
    name.map(str::to_owned).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_loaded_once_and_unloaded_once() {
        let adapters = Adapters::new(Vec::new());
        let body = br#"{"lora_name":"sql","lora_path":"/adapters/sql"}"#;
        assert!(adapters.load(body).unwrap().starts_with("Success"));
        assert_eq!(adapters.load(body).unwrap_err().0, StatusCode::BAD_REQUEST);
        assert!(adapters.has("sql"));
        assert!(adapters.unload(body).is_ok());
        assert_eq!(adapters.unload(body).unwrap_err().0, StatusCode::NOT_FOUND);
        assert!(adapters.load(b"{}").is_err());
    }
}
