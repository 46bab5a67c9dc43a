//! An endpoint as routing sees it: what it is, and how it is doing.

use std::sync::Arc;

use crate::domain::{EndpointId, EndpointSpec};

use super::Live;

/// One engine endpoint. Immutable but for the atomics in [`Live`], which all versions of the same endpoint share.
#[derive(Debug)]
pub struct Endpoint {
    /// Dense handle.
    pub id: EndpointId,
    /// What discovery says of it.
    pub spec: EndpointSpec,
    /// Its numbers.
    pub live: Arc<Live>,
    address_text: Box<str>,
}

impl Endpoint {
    /// An endpoint with this handle, description and numbers.
    pub fn new(id: EndpointId, spec: EndpointSpec, live: Arc<Live>) -> Self {
        let address_text = spec.address.to_string().into_boxed_str();
        Self { id, spec, live, address_text }
    }

    /// `ip:port` as headers carry it, IPv6 in brackets.
    pub fn address_text(&self) -> &str {
        &self.address_text
    }

    /// Relative capacity, at least 1.
    pub fn weight(&self) -> f64 {
        f64::from(self.spec.weight.max(1))
    }
}
