//! The manifests in `deploy/`: known fields only, least privilege, metrics that exist, and one truth for each thing.
//!
//! What needs `kubectl` and `promtool` is opt-in: `make check-deploy`.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const OVERLAYS: [&str; 6] =
    ["aibrix", "aibrix-gateway", "envoy-gateway", "envoy-gateway-duplex", "inference-pool", "standalone"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The objects of a file with several, `---` between them.
fn objects(text: &str) -> Vec<Value> {
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

/// The objects of `deploy/` that are applied as they are, with the file that each is in.
fn manifests() -> Vec<(String, Value)> {
    let is_manifest =
        |name: &str| !["fairlead.yaml", "envoy.yaml", "alerts-test.yaml"].iter().any(|other| name.ends_with(other));
    let named = |(name, text): (String, String)| objects(&text).into_iter().map(move |object| (name.clone(), object));
    files().into_iter().filter(|(name, _)| is_manifest(name)).flat_map(named).collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// The fields that the objects may have: facts about the API types, reduced to those that are used here.
fn schemas() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubernetes-fields.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Compares a value with what it may be: a type by name, words with bars between them, a list of one, or fields.
fn check(value: &Value, schema: &Value, at: &str, faults: &mut Vec<String>) {
    match (schema, value) {
        (Value::String(form), _) => {
            if !fits(value, form) {
                faults.push(format!("{at}: {value} is not {form}"));
            }
        }
        (Value::Array(forms), Value::Array(values)) => {
            values
                .iter()
                .enumerate()
                .for_each(|(index, value)| check(value, &forms[0], &format!("{at}[{index}]"), faults));
        }
        (Value::Object(fields), Value::Object(values)) => {
            for (name, value) in values {
                let field = fields.get(name).or_else(|| fields.get(&format!("{name}!")));
                match field {
                    Some(schema) => check(value, schema, &format!("{at}.{name}"), faults),
                    None => faults.push(format!("{at}.{name}: no such field")),
                }
            }
            let missing =
                fields.keys().filter_map(|name| name.strip_suffix('!')).filter(|name| !values.contains_key(*name));
            faults.extend(missing.map(|name| format!("{at}.{name}: is missing")));
        }
        _ => faults.push(format!("{at}: {value} has another form")),
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

fn faults(object: &Value, schemas: &Value) -> Vec<String> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let name = format!("{version} {}", kind(object));
    let Some(schema) = schemas.get(&name) else { return vec![format!("\"{name}\" is not known")] };
    let (mut faults, mut rest) = (Vec::new(), object.clone());
    let fields = rest.as_object_mut().unwrap();
    let metadata = fields.remove("metadata").unwrap_or_default();
    fields.remove("apiVersion");
    fields.remove("kind");
    let known = serde_json::json!({ "name!": "string", "namespace": "string", "labels": "map", "annotations": "map" });
    check(&metadata, &known, "metadata", &mut faults);
    check(&rest, schema, "", &mut faults);
    faults
}

#[test]
fn manifests_have_only_fields_that_exist() {
    let schemas = schemas();
    let mut found = Vec::new();
    for (file, object) in manifests() {
        // Patches and what kustomize itself reads are seen as they are rendered.
        if !["Kustomization", "Component"].contains(&kind(&object))
            && !file.ends_with("pod.yaml")
            && !file.ends_with("picker.yaml")
            && kind(&object) != "Deployment"
        {
            found.extend(
                faults(&object, &schemas).into_iter().map(|fault| format!("{file}: {} {fault}", kind(&object))),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn wrong_fields_are_found() {
    let text = "apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: { name: x }
spec:
  targetRefs: [ { group: g, kind: k, name: route } ]
  extProc:
  - backendRefs: [ { name: fairlead, port: '50052x' } ]
    failOpn: true
    messageTimeout: 5
    processingMode: { request: { body: Duplex } }
";
    let found = faults(&objects(text)[0], &schemas());
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn the_role_may_look_at_four_kinds_and_do_nothing_else() {
    let mut roles = 0;
    for (file, object) in manifests() {
        if !["ClusterRole", "Role"].contains(&kind(&object)) {
            continue;
        }
        roles += 1;
        let mut resources = Vec::new();
        for rule in object["rules"].as_array().unwrap() {
            assert_eq!(rule["verbs"], serde_json::json!(["list", "watch"]), "{file}");
            resources.extend(rule["resources"].as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned));
        }
        let expected = ["pods", "modeladapters", "inferencepools", "inferenceobjectives", "inferencemodelrewrites"];
        assert_eq!(resources, expected, "{file}");
    }
    assert_eq!(roles, 2);
}

#[test]
fn the_standalone_envoy_is_the_quickstarts() {
    let quickstart = include_str!("../envoy/quickstart.yaml");
    let expected = quickstart[quickstart.find("\nnode:").unwrap()..]
        .replace("run/ext_proc.sock", "/run/fairlead/ext_proc.sock")
        .replace("run/eds", "/run/fairlead/eds")
        .replace("address: 127.0.0.1, port_value: 10000", "address: 0.0.0.0, port_value: 10000");
    let kept = read("overlays/standalone/envoy.yaml");
    assert!(kept.ends_with(&expected), "run `tools/standalone-envoy.sh`");
}

/// Names of metrics of ours in a text.
fn metrics_in(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices("fairlead_").map(|(at, _)| text[at..].chars().take_while(|c| is_name(*c)).collect()).collect()
}

fn known_metrics() -> Vec<String> {
    let page = include_str!("../docs/metrics.md");
    page.lines()
        .filter_map(|line| Some(line.strip_prefix("| `fairlead_")?.split('`').next()?.to_owned()))
        .map(|name| format!("fairlead_{name}"))
        .collect()
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_that_exist() {
    let known = known_metrics();
    let (dashboard, alerts) = (read("monitoring/dashboard.json"), read("monitoring/alerts.yaml"));
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    let queries: Vec<_> = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten()).collect();
    assert!(queries.len() > 20, "{}", queries.len());
    for query in queries {
        assert!(!metrics_in(query["expr"].as_str().unwrap()).is_empty(), "{query}");
    }
    for name in [metrics_in(&dashboard), metrics_in(&alerts), metrics_in(&read("monitoring/alerts-test.yaml"))].concat()
    {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
        assert!(known.iter().any(|known| known == &name || known == stem), "{name} is not in docs/metrics.md");
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let rules = &objects(&read("monitoring/alerts.yaml"))[0]["spec"]["groups"][0]["rules"];
    let tests = read("monitoring/alerts-test.yaml");
    for rule in rules.as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert!(rule["annotations"]["action"].is_string() && rule["labels"]["severity"].is_string(), "{name}");
        assert!(
            tests.matches(&format!("{name} ")).count() + tests.matches(&format!("\"{name}\"")).count() >= 2,
            "{name} is not tested"
        );
    }
}

#[test]
fn shipped_configurations_are_valid() {
    for file in ["base/fairlead.yaml", "overlays/standalone/fairlead.yaml"] {
        let checked = Command::new(env!("CARGO_BIN_EXE_fairlead"))
            .args(["check", "--config"])
            .arg(root().join(file))
            .output()
            .unwrap();
        let faults = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{file}: {faults}");
    }
}

#[test]
fn a_pod_may_take_longer_to_stop_than_fairlead_and_the_autoscaler_alone_counts_pods() {
    let deployment = &objects(&read("base/deployment.yaml"))[0]["spec"];
    let autoscaler = &objects(&read("base/autoscaler.yaml"))[0]["spec"];
    assert!(deployment["replicas"].is_null() && autoscaler["minReplicas"].as_u64() >= Some(2));
    let pod = &deployment["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    for file in ["base/fairlead.yaml", "overlays/standalone/fairlead.yaml"] {
        let shutdown = &objects(&read(file))[0]["shutdown"];
        let seconds = |key: &str| shutdown[key].as_str().unwrap().strip_suffix('s').unwrap().parse::<u64>().unwrap();
        assert!(grace > seconds("delay") + seconds("grace"), "{file}");
    }
    let envoy = &objects(&read("overlays/standalone/pod.yaml"))[0]["spec"]["template"]["spec"]["containers"][1];
    let sleep = envoy["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(sleep < grace, "Envoy would be killed in the middle of its sleep");
}

#[test]
fn the_image_runs_without_privileges_and_holds_the_program_alone() {
    let file = read("Dockerfile");
    let stage = file.rsplit("\nFROM ").next().unwrap();
    assert!(stage.starts_with("scratch"), "{stage}");
    assert!(stage.contains("USER 65532:65532") && stage.contains(r#"ENTRYPOINT ["/fairlead"]"#), "{stage}");
    let deployment = read("base/deployment.yaml");
    for line in ["runAsNonRoot: true", "runAsUser: 65532", "readOnlyRootFilesystem: true", "drop: [ALL]"] {
        assert!(deployment.contains(line), "{line}");
    }
}

#[test]
fn the_image_is_compiled_by_the_toolchain_of_the_tests() {
    let toolchain = include_str!("../rust-toolchain.toml");
    let version = toolchain.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(read("Dockerfile").contains(&format!("\nFROM rust:{version}-bookworm AS build\n")), "{version}");
}

#[test]
fn the_images_context_is_what_the_program_is_compiled_from_and_nothing_else() {
    let ignored = include_str!("../.dockerignore");
    let rules: Vec<_> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(rules, ["*", "!Cargo.toml", "!Cargo.lock", "!benches", "!src", "!tests/support"]);
    // Compiled into the program, so it has to be in there.
    for file in ["src/admin/page.html", "src/routing/strategies.md", "tests/support/Cargo.toml"] {
        assert!(root().join("..").join(file).is_file(), "{file}");
    }
}

/// Runs a program and gives what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
#[ignore = "needs kubectl; `make check-deploy`"]
fn rendered_overlays_have_only_fields_that_exist() {
    let schemas = schemas();
    for overlay in OVERLAYS {
        let rendered = run("kubectl", &["kustomize", root().join("overlays").join(overlay).to_str().unwrap()]);
        let all = objects(&rendered);
        let found: Vec<_> = all.iter().flat_map(|object| faults(object, &schemas)).collect();
        assert!(found.is_empty(), "{overlay}: {found:#?}");
        let deployment = all.iter().find(|object| kind(object) == "Deployment").unwrap();
        let names = |of: &str| {
            all.iter()
                .filter(|object| kind(object) == of)
                .map(|object| object["metadata"]["name"].clone())
                .collect::<Vec<_>>()
        };
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        for volume in volumes.iter().filter(|volume| volume["configMap"].is_object()) {
            assert!(names("ConfigMap").contains(&volume["configMap"]["name"]), "{overlay}: {volume}");
        }
        let bound = all.iter().filter(|object| kind(object).ends_with("RoleBinding"));
        for binding in bound {
            assert_eq!(binding["subjects"][0]["namespace"], deployment["metadata"]["namespace"], "{overlay}");
        }
        eprintln!("{overlay}: {} objects", all.len());
    }
}

#[test]
#[ignore = "needs promtool; `make check-deploy`"]
fn alerts_ring_when_they_should_and_queries_can_be_read() {
    let folder = std::env::temp_dir().join(format!("fairlead-alerts-{}", fastrand::u64(..)));
    fs::create_dir_all(&folder).unwrap();
    let alerts = read("monitoring/alerts.yaml");
    let groups =
        alerts[alerts.find("  groups:").unwrap()..].lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    fs::write(folder.join("rules.yaml"), groups.collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(folder.join("test.yaml"), read("monitoring/alerts-test.yaml")).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    eprintln!("{}", run("promtool", &["check", "rules", &path("rules.yaml")]));
    eprintln!("{}", run("promtool", &["test", "rules", &path("test.yaml")]));
    let dashboard: Value = serde_json::from_str(&read("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries =
        panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten()).enumerate().map(|(at, query)| {
            let expr = query["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$namespace", ".*");
            format!("  - {{ record: 'query:{at}', expr: '{expr}' }}\n")
        });
    let group = format!("groups:\n- name: dashboard\n  rules:\n{}", queries.collect::<Vec<_>>().concat());
    fs::write(folder.join("dashboard.yaml"), group).unwrap();
    eprintln!("{}", run("promtool", &["check", "rules", &path("dashboard.yaml")]));
    fs::remove_dir_all(folder).unwrap();
}
