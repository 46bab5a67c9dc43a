//! The manifests in `deploy/`: known fields only, least privilege, metrics that exist, and one truth for each thing; and
//! the refusals that operators are told of.
//!
//! What needs `kubectl` is left out, and says so, where there is none. What needs `promtool` is opt-in: `make check-deploy`.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests are tests too")]

mod common_deploy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use common_deploy::fields::{Form, faults, schemas};
use common_deploy::{kind, manifests, objects, of_kind, read, rendered, root, run};

#[test]
fn manifests_have_only_fields_that_exist() {
    let schemas = schemas();
    let mut found = Vec::new();
    for (file, object) in manifests() {
        // The base leaves to kustomize what it puts everywhere, and the other Deployments are patches of it.
        let form = if kind(&object) == "Deployment" { Form::Part } else { Form::Whole };
        let faults = faults(&object, &schemas, form);
        found.extend(faults.into_iter().map(|fault| format!("{file}: {} {fault}", kind(&object))));
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
    let found = faults(&objects(text)[0], &schemas(), Form::Whole);
    assert_eq!(found.len(), 3, "{found:#?}");
    let mut deployment = objects(&read("base/deployment.yaml")).remove(0);
    let container = deployment["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap();
    let probe = container.remove("livenessProbe").unwrap();
    container.insert("livenesProbe".to_owned(), probe);
    let found = faults(&deployment, &schemas(), Form::Part);
    assert_eq!(found, [".spec.template.spec.containers[0].livenesProbe: no such field"]);
}

#[test]
fn the_roles_let_it_look_at_five_kinds_and_do_nothing_else() {
    let expected = [
        ("", "pods"),
        ("model.aibrix.ai", "modeladapters"),
        ("inference.networking.k8s.io", "inferencepools"),
        ("llm-d.ai", "inferenceobjectives"),
        ("llm-d.ai", "inferencemodelrewrites"),
    ];
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut kinds = Vec::new();
    for (file, object) in manifests() {
        if !["ClusterRole", "Role"].contains(&kind(&object)) {
            continue;
        }
        let mut pairs = Vec::new();
        for rule in object["rules"].as_array().unwrap() {
            assert_eq!(rule["verbs"], json!(["list", "watch"]), "{file}");
            for group in texts(&rule["apiGroups"]) {
                pairs.extend(texts(&rule["resources"]).into_iter().map(|resource| (group.clone(), resource)));
            }
        }
        assert_eq!(pairs, expected.map(|(group, resource)| (group.to_owned(), resource.to_owned())), "{file}");
        kinds.push(kind(&object).to_owned());
    }
    assert_eq!(kinds, ["Role", "ClusterRole"]);
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

/// The refusals that can happen, with their status: those of `openai/error.rs` that something asks for, and all of bodies.
fn refusals() -> BTreeSet<(String, String)> {
    let (errors, bodies) = (include_str!("../src/openai/error.rs"), include_str!("../src/openai/body_error.rs"));
    let mut sources = String::new();
    for part in ["src/exchange", "src/ext_proc"] {
        for entry in fs::read_dir(root().join("..").join(part)).unwrap() {
            sources += &fs::read_to_string(entry.unwrap().path()).unwrap();
        }
    }
    let mut found = BTreeSet::new();
    for function in errors.split("\n    pub fn ").skip(1) {
        let name = function.split(['(', '<']).next().unwrap();
        let made = function.split("Self::new(").nth(1).map(str::trim_start).and_then(|rest| rest.split_once(','));
        if let Some((status, rest)) = made.filter(|_| sources.contains(&format!("ApiError::{name}("))) {
            found.insert((rest.split('"').nth(1).unwrap().to_owned(), status.to_owned()));
        }
    }
    let codes = bodies.split("pub fn code(").nth(1).and_then(|rest| rest.split("\n    }\n").next()).unwrap();
    for code in codes.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        found.insert((code.to_owned(), if code == "field_too_long" { "413" } else { "400" }.to_owned()));
    }
    found
}

#[test]
fn the_table_of_reasons_has_every_refusal_that_can_happen() {
    let page = include_str!("../docs/operations.md");
    let table = page.split("\n| `reason` | status | |\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let mut listed = BTreeSet::new();
    for row in table.lines().skip(1) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let reasons = cells[1].split('`').skip(1).step_by(2).map(str::to_owned);
        listed.extend(reasons.map(|reason| (reason, cells[2].to_owned())));
    }
    assert!(listed.remove(&("models".to_owned(), "200".to_owned())), "no refusal, but an answer of ours");
    assert_eq!(listed, refusals());
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

/// Those of Fairlead.
const CONFIGURATIONS: [&str; 3] =
    ["base/fairlead.yaml", "overlays/inference-pool/fairlead.yaml", "overlays/standalone/fairlead.yaml"];

#[test]
fn shipped_configurations_are_valid() {
    for file in CONFIGURATIONS {
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
    for file in CONFIGURATIONS {
        let shutdown = &objects(&read(file))[0]["shutdown"];
        // Where the file says nothing, it is the 5 s that `fairlead picker` waits.
        let seconds =
            |key: &str| shutdown[key].as_str().unwrap_or("5s").strip_suffix('s').unwrap().parse::<u64>().unwrap();
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

#[test]
fn rendered_overlays_have_only_fields_that_exist() {
    let schemas = schemas();
    for (overlay, all) in rendered().into_iter().flatten() {
        let found: Vec<_> = all.iter().flat_map(|object| faults(object, &schemas, Form::Whole)).collect();
        assert!(found.is_empty(), "{overlay}: {found:#?}");
        eprintln!("{overlay}: {} objects", all.len());
    }
}

/// The one Deployment of an overlay, and the containers of its pods.
fn pod(all: &[Value]) -> (&Value, Vec<&Value>) {
    let deployment = of_kind(all, "Deployment")[0];
    let spec = &deployment["spec"]["template"]["spec"];
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| spec[list].as_array());
    (deployment, lists.flatten().collect())
}

/// A variable of Fairlead's container.
fn variable<'a>(all: &'a [Value], name: &str) -> Option<&'a Value> {
    let fairlead = pod(all).1.into_iter().find(|container| container["name"] == "fairlead").unwrap();
    fairlead["env"].as_array()?.iter().find(|variable| variable["name"] == name)
}

#[test]
fn every_config_map_is_read_by_somebody() {
    for (overlay, all) in rendered().into_iter().flatten() {
        let (deployment, containers) = pod(&all);
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let mounts: Vec<_> = containers.iter().flat_map(|one| one["volumeMounts"].as_array().unwrap()).collect();
        let mut mounted: Vec<_> = volumes
            .iter()
            .filter(|volume| mounts.iter().any(|mount| mount["name"] == volume["name"]))
            .filter_map(|volume| volume["configMap"]["name"].as_str())
            .collect();
        let maps = of_kind(&all, "ConfigMap");
        let mut maps: Vec<_> = maps.iter().map(|map| map["metadata"]["name"].as_str().unwrap()).collect();
        mounted.sort_unstable();
        maps.sort_unstable();
        assert_eq!(mounted, maps, "{overlay}");
        let fairlead = containers.iter().find(|container| container["name"] == "fairlead").unwrap();
        let file = json!("/etc/fairlead/fairlead.yaml");
        assert!(fairlead["args"].as_array().unwrap().contains(&file), "{overlay}: {}", fairlead["args"]);
    }
}

#[test]
fn rights_reach_as_far_as_it_looks_and_no_two_overlays_share_their_names() {
    let mut holders = BTreeMap::new();
    for (overlay, all) in rendered().into_iter().flatten() {
        let namespace = pod(&all).0["metadata"]["namespace"].as_str().unwrap().to_owned();
        let everywhere = of_kind(&all, "ClusterRoleBinding");
        let bindings = [everywhere.clone(), of_kind(&all, "RoleBinding")].concat();
        assert!(matches!(bindings.as_slice(), [one] if one["subjects"][0]["namespace"] == namespace), "{overlay}");
        for object in everywhere.iter().chain(&of_kind(&all, "ClusterRole")) {
            let name = (kind(object).to_owned(), object["metadata"]["name"].to_string());
            let holder = holders.entry(name.clone()).or_insert_with(|| namespace.clone());
            assert_eq!(*holder, namespace, "{overlay}: {name:?} is another overlay's too");
        }
        let places = variable(&all, "FAIRLEAD_DISCOVERY_KUBERNETES_NAMESPACES");
        let own = json!({ "fieldRef": { "fieldPath": "metadata.namespace" } });
        match places {
            Some(places) if everywhere.is_empty() => assert_eq!(places["valueFrom"], own, "{overlay}"),
            Some(places) => assert_eq!(places["value"], "*", "{overlay}"),
            // A picker: the pool's namespace, which is its own.
            None => assert_eq!((overlay, everywhere.len()), ("inference-pool", 0)),
        }
    }
}

#[test]
fn fairlead_names_no_engine_that_envoy_gateway_does_not_know() {
    let overlays = rendered().into_iter().flatten();
    for (overlay, all) in overlays.filter(|(overlay, _)| overlay.starts_with("envoy-gateway")) {
        let services = of_kind(&all, "Service");
        let engines = services.iter().find(|service| service["metadata"]["name"] == "engines").unwrap();
        let selector = engines["spec"]["selector"].as_object().unwrap();
        let selector: Vec<_> =
            selector.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
        let ours = variable(&all, "FAIRLEAD_DISCOVERY_KUBERNETES_POD_SELECTOR").unwrap();
        assert_eq!(ours["value"], selector.join(","), "{overlay}");
        assert_eq!(engines["metadata"]["namespace"], pod(&all).0["metadata"]["namespace"], "{overlay}");
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
