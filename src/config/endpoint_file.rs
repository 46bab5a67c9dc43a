//! A file of endpoints: the same list as `discovery.static`, read by the same rules.

use std::path::Path;
use std::sync::Arc;

use super::load::typed;
use super::tree::{Node, Scalar, Value};
use super::{EndpointConfig, Fault, Origin, check_endpoints};

/// Reads a YAML list of endpoints. `[]` is a list of none; an empty text is a fault, because a file that is just being
/// written looks the same.
///
/// # Errors
/// The faults of the text, each with its line, in the order of lines, so that a user mends them in one go.
pub fn read_endpoints(text: &str) -> Result<Vec<EndpointConfig>, Vec<Fault>> {
    let path: Arc<Path> = Arc::from(Path::new(""));
    let mut tree = Node::parse(text, &path).map_err(|fault| vec![fault])?;
    if matches!(tree.value, Value::Scalar(Scalar::Null)) {
        let message = "the file is empty; write \"[]\" for no endpoints".to_owned();
        let origin = Origin::File { path, line: 0, column: 0 };
        return Err(vec![Fault { origin, key: String::new(), message }]);
    }
    let mut faults = Vec::new();
    let endpoints: Vec<EndpointConfig> = typed(&mut tree, &mut faults);
    let nodes = tree.in_use();
    for (index, message) in check_endpoints(&endpoints) {
        let (at, origin) = nodes.get(index).map_or((index, Origin::Default), |(at, node)| (*at, node.origin.clone()));
        faults.push(Fault { origin, key: format!("[{at}]"), message });
    }
    if faults.is_empty() {
        return Ok(endpoints);
    }
    faults.sort_by_key(|fault| fault.origin.line());
    Err(faults)
}
