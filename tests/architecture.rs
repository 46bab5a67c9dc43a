//! Who may use whom: the module graph and the crate fences, as a test.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it may name through `crate::`. `app` and `main` may use everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    // Blocking calls on files; no runtime.
    ("files", &[]),
    // Configuration knows endpoints; the strategies' names are handed to it.
    ("config", &["domain"]),
    ("openai", &["domain"]),
    ("index", &["domain"]),
    ("state", &["domain"]),
    ("telemetry", &["config", "domain", "state"]),
    ("admission", &["domain", "telemetry"]),
    ("routing", &["domain", "files", "index", "openai", "state", "telemetry"]),
    // One HTTP exchange: no gRPC, no async.
    ("exchange", &["admission", "config", "domain", "index", "lookup", "openai", "routing", "state", "telemetry"]),
    ("ext_proc", &["config", "domain", "exchange", "files", "openai", "routing", "telemetry"]),
    ("discovery", &["config", "domain", "files", "state", "telemetry"]),
    ("scrape", &["config", "domain", "state", "telemetry"]),
    ("ask", &[]),
    ("kv_events", &["ask", "config", "domain", "index", "state", "telemetry"]),
    ("lookup", &["ask", "config", "domain", "index", "openai", "routing", "state", "telemetry"]),
    ("admin", &["config", "domain", "exchange", "routing", "state", "telemetry"]),
    // What production routes by, on virtual time.
    ("simulate", &["config", "domain", "index", "routing", "state"]),
    ("cli", &["config", "domain", "simulate"]),
];

/// Crates that only some modules may touch, so that a strategy cannot reach the network even by mistake.
const FENCES: &[(&str, &[&str])] = &[
    ("tonic", &["ext_proc", "app"]),
    ("envoy_types", &["ext_proc"]),
    ("rustls", &["ext_proc"]),
    ("tokio_rustls", &["ext_proc"]),
    ("rcgen", &["ext_proc"]),
    ("hyper", &["admin", "ask"]),
    ("hyper_util", &["admin", "ask"]),
    ("zeromq", &[]),
    ("socket2", &["admin", "kv_events"]),
    ("notify", &["discovery"]),
    ("axum", &["admin"]),
    ("kube", &["discovery"]),
    ("k8s_openapi", &["discovery"]),
    ("tower", &["discovery"]),
    ("tokio", &["app", "admin", "discovery", "ext_proc", "kv_events", "lookup", "scrape", "state"]),
];

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap().to_owned();
                let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
                let module = first.trim_end_matches(".rs").to_owned();
                // The product's rules: what tests use is their own affair.
                let text = fs::read_to_string(&path).unwrap();
                let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                if !relative.to_string_lossy().contains("test") {
                    found.push((module, relative, product));
                }
            }
        }
    }
    found
}

fn named_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let first_word = |rest: &'a str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
    text.split(prefix).skip(1).map(first_word)
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let may_use: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut violations = Vec::new();
    for (module, file, text) in sources() {
        let Some(allowed) = may_use.get(module.as_str()) else { continue };
        for target in named_after(&text, "crate::") {
            if target != module && !allowed.contains(&target) && may_use.contains_key(target) {
                violations.push(format!("{} uses {target}", file.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn crates_stay_behind_their_fences() {
    let mut violations = Vec::new();
    for (module, file, text) in sources() {
        for (fenced, allowed) in FENCES {
            let names = text.contains(&format!("use {fenced}::")) || text.contains(&format!(" {fenced}::"));
            if names && !allowed.contains(&module.as_str()) {
                violations.push(format!("{} uses the crate {fenced}", file.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_module_has_its_rule() {
    for (module, file, _) in sources() {
        let known = MAY_USE.iter().any(|(name, _)| *name == module);
        assert!(known || ["app", "main", "lib"].contains(&module.as_str()), "no rule for {}", file.display());
    }
}

#[test]
fn no_file_outgrows_one_job() {
    for (_, file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines", file.display());
    }
}

#[test]
fn a_rule_is_broken_by_what_it_forbids() {
    let found: Vec<_> = named_after("use crate::state::Reader;\nuse crate::ext_proc::Server;", "crate::").collect();
    assert_eq!(found, ["state", "ext_proc"]);
    assert!(!MAY_USE.iter().any(|(name, allowed)| *name == "state" && allowed.contains(&"ext_proc")));
}
