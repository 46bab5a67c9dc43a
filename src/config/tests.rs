use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::domain::{Complaint, hint};

struct Given<'a> {
    yaml: &'a str,
    env: &'a [(&'a str, &'a str)],
    flags: &'a [(&'static str, &'a str)],
}

impl Given<'_> {
    fn load(&self) -> Result<Loaded, Vec<Fault>> {
        let env = |name: &str| self.env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let flags: Vec<_> = self.flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let file = Some(Path::new("fairlead.yaml"));
        let sources = Sources { file, env: &env, flags: &flags, defaults: &[], check: &complaints };
        load::load_with(&sources, |_| Ok(self.yaml.to_owned()))
    }

    /// Faults as `line: key: message`, or with the origin where it is not the file.
    fn faults(&self) -> Vec<String> {
        let faults = self.load().expect_err("the configuration should not load");
        let text = |fault: &Fault| match &fault.origin {
            Origin::File { line, .. } => format!("{line}: {}: {}", fault.key, fault.message),
            other => format!("{other}: {}: {}", fault.key, fault.message),
        };
        faults.iter().map(text).collect()
    }
}

/// Stands in for the strategies, which configuration does not know.
fn complaints(config: &Config) -> Vec<Complaint> {
    let (name, known) = (config.routing.algorithm.as_str(), ["least-request", "random"]);
    let complaint =
        || Complaint::at(["routing", "algorithm"], format!("there is no strategy \"{name}\"; {}", hint(name, known)));
    let algorithm = (!known.contains(&name)).then(complaint);
    let second = |name| Complaint::at(["routing", "strategies", name, "scorers", "1", "use"], "is nonsense");
    algorithm.into_iter().chain(config.routing.strategies.contains_key("m.1").then(|| second("m.1"))).collect()
}

fn yaml(yaml: &str) -> Given<'_> {
    Given { yaml, env: &[], flags: &[] }
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "# nothing\n", "listen:\nrouting: {}\ndiscovery: {static: }\n"] {
        assert_eq!(yaml(text).load().unwrap().config, Config::default(), "{text:?}");
    }
}

#[test]
fn the_smallest_useful_file_loads() {
    let text = "listen: { ext_proc: 127.0.0.1:50052, admin: 127.0.0.1:8080 }
routing: { algorithm: random, seed: 7 }
discovery:
  static:
    - { address: 127.0.0.1:8001, models: [llama-3-8b, { name: q, adapters: [sql] }], engine: vllm, cost: 2 }
    - { address: '[::1]:8002' }
  file: { path: endpoints.yaml }
envoy: { eds_file: run/eds/endpoints.yaml }
scrape: { interval_max: 1s 500ms }
";
    let config = yaml(text).load().unwrap().config;
    assert_eq!(config.discovery.fixed.len(), 2);
    assert_eq!(config.discovery.fixed[0].models.len(), 2);
    assert_eq!(config.discovery.file.unwrap().poll, Duration::from_secs(5));
    assert_eq!((config.routing.seed, config.scrape.interval_max), (Some(7), Duration::from_millis(1500)));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let given = Given {
        yaml: "listen:\n  threads: 1\nenvoy:\n  mode_override: false\nlimits: { body_bytes_max: 5 }\n",
        env: &[
            ("FAIRLEAD_LISTEN_THREADS", "2"),
            ("FAIRLEAD_LIMITS_BODY_BYTES_MAX", "6"),
            ("FAIRLEAD_ROUTING_SEED", ""),
        ],
        flags: &[("listen.threads", "3"), ("discovery.file.path", "x.yaml")],
    };
    let loaded = given.load().unwrap();
    let config = &loaded.config;
    assert_eq!((config.listen.threads, config.limits.body_bytes_max, config.envoy.mode_override), (3, 6, false));
    assert_eq!(config.discovery.file.as_ref().unwrap().path, PathBuf::from("x.yaml"));
    assert_eq!(loaded.origin("listen.threads"), Origin::Flag("--listen-threads".to_owned()));
    assert_eq!(loaded.origin("limits.body_bytes_max"), Origin::Env("FAIRLEAD_LIMITS_BODY_BYTES_MAX".to_owned()));
    assert!(matches!(loaded.origin("envoy.mode_override"), Origin::File { line: 4, .. }));
    assert_eq!(loaded.origin("log.filter"), Origin::Default);
}

#[test]
fn routing_algorithm_has_two_environment_variables_that_must_agree() {
    let env = |env| Given { yaml: "", env, flags: &[] };
    assert_eq!(env(&[("ROUTING_ALGORITHM", "random")]).load().unwrap().config.routing.algorithm, "random");
    let both: &[_] = &[("ROUTING_ALGORITHM", "random"), ("FAIRLEAD_ROUTING_ALGORITHM", "least-request")];
    assert_eq!(
        env(both).faults(),
        [
            "environment variable ROUTING_ALGORITHM: routing.algorithm: is \"random\", but FAIRLEAD_ROUTING_ALGORITHM is \
          \"least-request\"; unset one of the two"
        ]
    );
}

#[test]
fn every_fault_is_found_with_its_line() {
    let text = "listen:
  ext_prok: 127.0.0.1:1
  admin: localhost:8080
  threads: many
routing:
  algorithm: least-requests
  unknown_paths: not_found
  decision_timeout: 30
discovery:
  static:
    - address: 127.0.0.1:8001
      wieght: 3
    - models: [a]
    - { address: 127.0.0.1:8003, models: [{ nam: a }], engine: vlm }
    - { address: 127.0.0.1:8004, weight: 5000 }
  file: { poll: 1s }
destination: { list: 9 }
scrape: [1]
health: { cooldown_base: 1m }
nonsense: 1
";
    let given =
        Given { yaml: text, env: &[("FAIRLEAD_ENVOY_MODE_OVERRIDE", "maybe")], flags: &[("log.format", "xml")] };
    insta::assert_snapshot!(given.faults().join("\n"));
}

#[test]
fn text_that_is_not_yaml_and_a_missing_file_are_one_fault_each() {
    let faults = yaml("listen: {\nrouting: [").faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("not valid YAML"), "{faults:?}");
    let faults = yaml("log: {format: json}\nlog: {format: json}").faults();
    assert!(faults[0].starts_with("2: : not valid YAML: duplicate"), "{faults:?}");
    let missing =
        Sources { file: Some("no/such.yaml".as_ref()), env: &|_| None, flags: &[], defaults: &[], check: &complaints };
    let faults = load(&missing).unwrap_err();
    assert!(faults[0].to_string().starts_with("no/such.yaml: cannot be read"), "{faults:?}");
}

#[test]
fn the_environment_can_name_the_file() {
    let env = |name: &str| (name == "FAIRLEAD_CONFIG").then(|| "no/such.yaml".to_owned());
    let faults = load(&Sources { file: None, env: &env, flags: &[], defaults: &[], check: &complaints }).unwrap_err();
    assert!(faults[0].to_string().starts_with("no/such.yaml: cannot be read"), "{faults:?}");
}

#[test]
fn combinations_that_cannot_work_are_faults() {
    for (text, fault) in [
        ("destination: { list: 2, endpoint_header: false, metadata: false }", "names one endpoint only"),
        ("destination: { target_pod: false, endpoint_header: false, metadata: false }", "never told"),
        ("envoy: { eds_file: run/eds }", "must end in .yaml or .json"),
        ("envoy: { eds_cluster: '' }", "is empty"),
        ("envoy: { eds_cluster: \"a\\tb\" }", "control character"),
        ("scrape: { generic: { path: \"/m HTTP/1.1\\r\\nx: y\" } }", "not a path"),
        ("tokenizer: { url: \"http://a b\" }", "must begin with"),
        ("routing: { models: { \"a\\nb\": {} } }", "control character"),
        ("scrape: { timeout: 0s }", "is 0"),
        ("scrape: { interval_max: 10s }", "stale"),
        ("scrape: { interval_min: 3s }", "longer"),
        ("scrape: { generic: { metrics: { runing: { names: [a] } } } }", "running"),
        ("scrape: { generic: { metrics: { running: { names: [] } } } }", "at least one name"),
        ("scrape: { generic: { path: metrics } }", "not a path"),
        ("limits: { body_budget_bytes: 1 }", "would not fit"),
        ("listen: { ext_proc: 0.0.0.0:8080 }", "cannot both listen"),
        ("log: { filter: 'a=b=c' }", "not a filter"),
    ] {
        let faults = yaml(text).faults();
        assert!(faults.len() == 1 && faults[0].contains(fault), "{text}: {faults:?}");
    }
    let long = format!("listen: {{ ext_proc: 'unix:{}' }}", "x".repeat(108));
    assert!(yaml(&long).faults()[0].contains("108 bytes"));
}

#[test]
fn the_effective_configuration_says_where_values_come_from_and_loads_again() {
    let given = Given {
        yaml: "listen: { threads: 2 }\nlog: { filter: 'fairlead=debug,hyper=warn,tonic=warn,h2=warn,tower=warn,axum=warn,notify=warn,info' }\n",
        env: &[("ROUTING_ALGORITHM", "random")],
        flags: &[("destination.list", "3"), ("discovery.file.path", "x.yaml")],
    };
    let loaded = given.load().unwrap();
    let text = loaded.to_yaml();
    for line in [
        "  algorithm: random  # environment variable ROUTING_ALGORITHM",
        "  list: 3  # flag --destination-list",
        "    path: x.yaml  # flag --discovery-file-path",
        "  admin: 127.0.0.1:8080",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.lines().any(|line| line == "  threads: 2  # fairlead.yaml:1:20"), "{text}");
    assert_eq!(yaml(&text).load().unwrap().config, loaded.config);
}

#[test]
fn the_annotation_of_an_endpoint_is_read_with_it() {
    let text = |json: &str| {
        format!("discovery:\n  static:\n    - {{ address: 127.0.0.1:1, models: [m], profiles: '{json}' }}\n")
    };
    let config = yaml(&text(r#"{"lockedRoutingStrategy":"random","profiles":{"a":{}}}"#)).load().unwrap().config;
    let spec = crate::domain::EndpointSpec::from(&config.discovery.fixed[0]);
    assert_eq!(spec.profiles.unwrap().locked.as_deref(), Some("random"));
    let faults = yaml(&text("{}")).faults();
    assert!(faults[0].starts_with("3: discovery.static[0]: profiles: there are no profiles"), "{faults:?}");
}

#[test]
fn a_complaint_about_a_strategy_is_placed_even_if_its_name_has_a_dot() {
    let text = "routing:
  strategies:
    m.1:
      scorers:
        - { use: least-request }
        - { use: nonsense, weight: 2 }
";
    assert_eq!(yaml(text).faults(), ["6: routing.strategies.m.1.scorers[1].use: is nonsense"]);
    let broken = yaml(&text.replace("weight", "weigth")).faults();
    assert_eq!(broken, ["6: routing.strategies.m.1.scorers[1].weigth: unknown key; did you mean \"weight\"?"]);
}

/// As YAML 1.1, or 1.2, takes them for something else than text.
const ODD: [&str; 24] = [
    "off",
    "on",
    "yes",
    "no",
    "Off",
    "y",
    "n",
    "True",
    "1e3",
    "0x10",
    "0o17",
    "010",
    "1_000",
    "1:30:45",
    "2026-12-01",
    "1.10",
    "+1",
    "-0",
    ".5",
    "12345678901234567890123",
    "inf",
    "1.",
    "0b11",
    "-0x1F",
];

#[test]
fn a_choice_is_read_as_it_was_written() {
    for setting in SETTINGS {
        let Form::Choice(words) = setting.form else { continue };
        let (section, name) = setting.key.rsplit_once('.').unwrap();
        let mut loaded = 0;
        for word in words.iter().chain(ODD.iter().filter(|word| !words.contains(word))) {
            let yaml = format!("{section}: {{ {name}: {word} }}\n");
            match (Given { yaml: &yaml, env: &[], flags: &[] }).load() {
                Ok(loaded_config) => {
                    loaded += 1;
                    let tree = serde_json::to_value(&loaded_config.config).unwrap();
                    assert_eq!(tree.pointer(&format!("/{section}/{name}")).unwrap(), word, "{yaml}");
                }
                // Some need another setting besides; what was read is right then, too.
                Err(faults) if words.contains(word) => {
                    let text = faults[0].to_string();
                    assert!(!text.contains("is not one of the choices"), "{text}");
                    loaded += 1;
                }
                Err(faults) => {
                    let text = faults[0].to_string();
                    assert!(text.contains(&format!("\"{word}\" is not one of the choices")), "{yaml}: {text}");
                }
            }
        }
        assert_eq!(loaded, words.len(), "{}", setting.key);
    }
}

#[test]
fn text_is_read_as_it_was_written_wherever_it_stands() {
    for word in ODD {
        let text = format!(
            "discovery:\n  static:\n    - address: 127.0.0.1:1\n      name: {word}\n      tier: {word}\n      pools: [{word}]\n      \
             models: [{word}, {{ name: m, adapters: [{word}] }}]\n      labels: {{ {word}: {word} }}\n  kubernetes: {{ namespaces: {word}, \
             labels: {{ model: [{word}] }} }}\nenvoy: {{ eds_cluster: {word} }}\n"
        );
        let config = yaml(&text).load().unwrap_or_else(|faults| panic!("{word}: {faults:?}")).config;
        let endpoint = &config.discovery.fixed[0];
        let name = Some(word.to_owned());
        assert_eq!((&endpoint.name, &endpoint.tier, endpoint.pools.first()), (&name, &name, name.as_ref()));
        let adapters = NamedModel { name: "m".to_owned(), adapters: vec![word.to_owned()] };
        assert_eq!(endpoint.models, [ModelConfig::Name(word.to_owned()), ModelConfig::WithAdapters(adapters)]);
        assert_eq!(endpoint.labels.get(word).map(String::as_str), Some(word));
        let kubernetes = config.discovery.kubernetes.unwrap();
        for names in [kubernetes.namespaces.as_ref().unwrap(), &kubernetes.labels.model] {
            assert_eq!(names.iter().collect::<Vec<_>>(), [word]);
        }
        assert_eq!(config.envoy.eds_cluster, word);
    }
    let file = format!("- address: 127.0.0.1:1\n  name: {}\n", ODD[0]);
    assert_eq!(read_endpoints(&file).unwrap()[0].name.as_deref(), Some("off"));
}

#[test]
fn numbers_truth_values_and_parameters_keep_their_types() {
    let text = "routing:
  seed: 0x10
  header: off
  explain: yes
  strategies:
    s: { use: random, parameters: { a: 1e3, b: off, c: [1, x, '2'], d: { e: 0.5 }, f: \"7\" } }
discovery: { kubernetes: { port: '80', local_pool: { selector: a=b, ports: [8000, '8001,8002'] } } }
listen: { threads: '3' }
";
    let config = yaml(text).load().unwrap().config;
    let routing = &config.routing;
    assert_eq!((routing.seed, routing.header, routing.explain, config.listen.threads), (Some(16), false, true, 3));
    let expected = serde_json::json!({ "a": 1e3, "b": false, "c": [1, "x", "2"], "d": { "e": 0.5 }, "f": "7" });
    assert_eq!(serde_json::Value::from(routing.strategies["s"].parameters.clone()), expected);
    let kubernetes = config.discovery.kubernetes.unwrap();
    assert_eq!((kubernetes.port, kubernetes.local_pool.ports.as_slice()), (80, &[8000, 8001, 8002][..]));
}

#[test]
fn null_is_no_value_where_one_is_needed() {
    for text in ["listen: { tls: ~ }", "envoy: { eds_cluster: null }", "destination: { list: }"] {
        let faults = yaml(text).faults();
        assert!(faults.len() == 1 && faults[0].contains("needs one value; write"), "{text}: {faults:?}");
    }
    assert_eq!(yaml("envoy: { eds_file: ~ }\nrouting: { seed: null }").load().unwrap().config, Config::default());
}
