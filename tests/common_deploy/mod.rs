//! Reading `deploy/`: its files, its objects, and what kustomize makes of them.

pub(crate) mod fields;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What a user may apply.
pub(crate) const OVERLAYS: [&str; 6] =
    ["aibrix", "aibrix-gateway", "envoy-gateway", "envoy-gateway-duplex", "inference-pool", "standalone"];

/// The folder `deploy/`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// A file under `deploy/`.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The objects of a file with several, `---` between them.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents =
        text.split("\n---\n").filter(|part| part.lines().any(|line| !line.is_empty() && !line.starts_with('#')));
    documents.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}\n{part}"))).collect()
}

/// Every YAML file under `deploy/`, by its path there.
fn files() -> BTreeMap<String, String> {
    let (mut folders, mut found) = (vec![root()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The objects of `deploy/`, with the file that each is in; patches among them, but not what kustomize itself reads.
pub(crate) fn manifests() -> Vec<(String, Value)> {
    let is_manifest = |name: &str| {
        let others = ["fairlead.yaml", "envoy.yaml", "alerts-test.yaml", "kustomization.yaml"];
        !others.iter().any(|other| name.ends_with(other))
    };
    let named = |(name, text): (String, String)| objects(&text).into_iter().map(move |object| (name.clone(), object));
    files().into_iter().filter(|(name, _)| is_manifest(name)).flat_map(named).collect()
}

/// The kind of an object.
pub(crate) fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// What kustomize makes of each overlay; `None`, and a line that says so, on machines without `kubectl`.
pub(crate) fn rendered() -> Option<Vec<(&'static str, Vec<Value>)>> {
    if Command::new("kubectl").arg("kustomize").arg("--help").output().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
        eprintln!("skipped: kubectl is not installed");
        return None;
    }
    let render = |overlay| run("kubectl", &["kustomize", root().join("overlays").join(overlay).to_str().unwrap()]);
    Some(OVERLAYS.map(|overlay| (overlay, objects(&render(overlay)))).into())
}

/// The objects of a kind.
pub(crate) fn of_kind<'a>(all: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    all.iter().filter(|object| kind(object) == wanted).collect()
}

/// Runs a program and gives what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
