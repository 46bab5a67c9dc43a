//! The fields that objects may have: `tests/fixtures/kubernetes-fields.yaml` compared with objects.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::kind;

/// Facts about the API types, reduced to those that are used here.
pub(crate) fn schemas() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubernetes-fields.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether an object is all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is applied.
    Whole,
    /// Before kustomize has put everything together: fields may be missing, and `$patch` may say what to do.
    Part,
}

/// What is wrong with an object: fields that do not exist or are missing, and values that do not fit.
pub(crate) fn faults(object: &Value, schemas: &Value, form: Form) -> Vec<String> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let name = format!("{version} {}", kind(object));
    let Some(schema) = schemas.get(&name) else { return vec![format!("\"{name}\" is not known")] };
    let (mut check, mut rest) = (Check { form, faults: Vec::new() }, object.clone());
    let fields = rest.as_object_mut().unwrap();
    let metadata = fields.remove("metadata").unwrap_or_default();
    fields.remove("apiVersion");
    fields.remove("kind");
    let known = json!({ "name!": "string", "namespace": "string", "labels": "map", "annotations": "map" });
    check.value(&metadata, &known, "metadata");
    check.value(&rest, schema, "");
    check.faults
}

struct Check {
    form: Form,
    faults: Vec<String>,
}

impl Check {
    /// Compares a value with what it may be: a type by name, words with bars between them, a list of one, or fields.
    fn value(&mut self, value: &Value, schema: &Value, at: &str) {
        match (schema, value) {
            (Value::String(form), _) => {
                if !fits(value, form) {
                    self.faults.push(format!("{at}: {value} is not {form}"));
                }
            }
            (Value::Array(forms), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(value, &forms[0], &format!("{at}[{index}]"));
                }
            }
            (Value::Object(fields), Value::Object(values)) => {
                for (name, value) in values {
                    let field = fields.get(name).or_else(|| fields.get(&format!("{name}!")));
                    match field {
                        Some(schema) => self.value(value, schema, &format!("{at}.{name}")),
                        None if self.form == Form::Part && name == "$patch" => {}
                        None => self.faults.push(format!("{at}.{name}: no such field")),
                    }
                }
                let missing =
                    fields.keys().filter_map(|name| name.strip_suffix('!')).filter(|name| !values.contains_key(*name));
                if self.form == Form::Whole {
                    self.faults.extend(missing.map(|name| format!("{at}.{name}: is missing")));
                }
            }
            _ => self.faults.push(format!("{at}: {value} has another form")),
        }
    }
}

fn fits(value: &Value, form: &str) -> bool {
    let is_duration = |text: &str| {
        let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
        !number.is_empty() && number.len() < text.len() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    match form {
        "any" => true,
        "string" => value.is_string(),
        "int" => value.is_i64(),
        "bool" => value.is_boolean(),
        "port" => value.is_string() || value.as_i64().is_some_and(|port| (1..=65535).contains(&port)),
        "map" => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
        "duration" => value.as_str().is_some_and(is_duration),
        "quantity" => value.as_str().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit())),
        words => value.as_str().is_some_and(|text| words.split('|').any(|word| word == text)),
    }
}
