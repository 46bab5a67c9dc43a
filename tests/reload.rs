//! The configuration is read again, the process ends when it is told to, and no second one disturbs the first: seen at
//! the real program, and through a real Envoy where a client would see it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests too")]

mod common_life;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use fairlead_lab::harness::{Child, Folder, Stack, free_address, get};
use fairlead_lab::load::{self, LoadOptions};
use serde_json::Value;

use common_life::{MODEL, QUICKSTART, SOON, ask, metric, nothing_failed, open, rows, soon, stack, traffic};

/// Endpoints and everything else in one file.
fn config(engines: usize, more: &str) -> String {
    let endpoint = |engine| format!("    - {{ address: \"{{engine{engine}}}\", models: [{MODEL}] }}\n");
    let endpoints: String = (0..engines).map(endpoint).collect();
    format!(
        "listen: {{ ext_proc: \"unix:{{ext_proc}}\", admin: \"{{admin}}\" }}\nenvoy: {{ eds_file: \"{{eds}}\" }}\n\
         discovery:\n  static:\n{endpoints}{more}"
    )
}

const LIST: &str = "destination: { list: 3 }\n";

/// Writes the file of a running stack anew, by a change of its text.
fn edit(stack: &Stack, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(stack.folder().join("fairlead.yaml")).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    stack.folder().write("fairlead.yaml", &changed).unwrap();
}

const OK: &str = "fairlead_config_reloads_total{result=\"ok\"}";
const FAILED: &str = "fairlead_config_reloads_total{result=\"failed\"}";

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap().success());
}

fn log(folder: &Folder) -> String {
    fs::read_to_string(folder.join("fairlead.log")).unwrap()
}

async fn json(stack: &Stack, path: &str) -> Value {
    serde_json::from_str(&stack.admin_get(path).await.unwrap().1).unwrap()
}

async fn strategy(stack: &Stack) -> String {
    ask(stack, 2).await.header("routing-strategy").unwrap_or_default().to_owned()
}

async fn settings_take_effect(stack: &Stack) {
    edit(stack, |text| format!("{text}routing: {{ algorithm: random }}\n"));
    soon("another strategy", async || strategy(stack).await == "random").await;
    assert_eq!(metric(stack, OK).await, 1);

    let address = stack.engine(2).unwrap().address();
    let third = format!("  static:\n    - {{ address: \"{address}\", models: [{MODEL}] }}\n");
    edit(stack, |text| text.replace("  static:\n", &third));
    soon("an endpoint more", async || rows(stack).await.len() == 3).await;
    soon("it serves", async || stack.engine(2).unwrap().counters().completed > 10).await;
    let sent: u64 = rows(stack).await.iter().map(|row| row.sent).sum();

    edit(stack, |text| {
        text.replace("{ algorithm: random }", "{ algorithm: mine, strategies: { mine: { use: least-request } } }")
    });
    soon("a strategy with a name", async || strategy(stack).await == "mine").await;
    assert!(metric(stack, "fairlead_decisions_total{strategy=\"mine\"}").await > 0);
    assert!(metric(stack, "fairlead_decisions_total{strategy=\"random\"}").await > 0, "former counts stay");
    edit(stack, |text| text.replace(&third, "  static:\n"));
    soon("an endpoint less", async || rows(stack).await.len() == 2).await;
    edit(stack, |text| text.replace("list: 3", "list: 3, response_headers: false"));
    soon("no headers in answers", async || ask(stack, 2).await.header("routing-strategy").is_none()).await;
    edit(stack, |text| text.replace(", response_headers: false", ""));
    soon("headers again", async || strategy(stack).await == "mine").await;
    let now: u64 = rows(stack).await.iter().map(|row| row.sent).sum();
    assert!(now > sent / 2, "endpoints that stay keep their counts");
}

/// A name goes into headers of answers and of metrics.
async fn names_that_would_be_no_header_are_refused(stack: &Stack) {
    let address = stack.engine(0).unwrap().address();
    let named = |name: &str| format!("{{ address: \"{address}\", name: \"{name}\",");
    let plain = format!("{{ address: \"{address}\",");
    let failed = metric(stack, FAILED).await;
    edit(stack, |text| text.replace(&plain, &named("a\\nb")));
    soon("the name is refused", async || metric(stack, FAILED).await > failed).await;
    let error = json(stack, "/api/config").await["reload"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("name \"a\\nb\" has a control character"), "{error}");
    edit(stack, |text| text.replace(&named("a\\nb"), &named("Köln 1")));
    soon("another is taken", async || stack.admin_get("/api/endpoints").await.unwrap().1.contains("Köln 1")).await;
    let served = || stack.engine(0).unwrap().counters().completed;
    let before = served();
    soon("and it serves", async || ask(stack, 2).await.status == 200 && served() > before).await;
    edit(stack, |text| text.replace(&named("Köln 1"), &plain));
    soon("as before", async || !stack.admin_get("/api/endpoints").await.unwrap().1.contains("Köln 1")).await;
}

async fn faults_change_nothing(stack: &Stack) {
    let before = json(stack, "/api/config").await;
    edit(stack, |text| format!("{text}health: {{ cooldown_max: soon }}\n"));
    soon("the faulty file is refused", async || metric(stack, FAILED).await == 2).await;
    let error = json(stack, "/api/config").await["reload"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("fairlead.yaml:") && error.contains("\"soon\" does not fit"), "{error}");
    let (status, page) = stack.admin_get("/readyz").await.unwrap();
    assert!(status == 200 && page.contains("the configuration before stays in effect"), "{page}");
    assert!(log(stack.folder()).contains("configuration refused"));
    assert_eq!(json(stack, "/api/config").await["health"], before["health"]);
    edit(stack, |text| text.replace("cooldown_max: soon", "cooldown_max: 7s"));
    soon("mended", async || json(stack, "/api/config").await["health"]["cooldown_max"] == "7s").await;
    assert_eq!(json(stack, "/api/config").await["reload"].get("error"), None);
}

async fn what_waits_is_named(stack: &Stack) {
    edit(stack, |text| format!("{text}log: {{ format: json, filter: debug }}\n"));
    soon("one waits", async || metric(stack, "fairlead_config_settings_waiting_for_restart{}").await == 1).await;
    let page = json(stack, "/api/config").await;
    assert_eq!(page["reload"]["waiting_for_restart"], serde_json::json!(["log.format"]));
    assert_eq!((&page["log"]["format"], &page["log"]["filter"]), (&"pretty".into(), &"debug".into()));
    let times = || log(stack.folder()).matches("take effect after a restart").count();
    assert_eq!(times(), 1);
    soon("the filter is in effect", async || log(stack.folder()).contains("DEBUG")).await;
    let taken = metric(stack, OK).await;
    signal(stack.process_ids().1.unwrap(), "HUP");
    soon("read again by SIGHUP", async || metric(stack, OK).await == taken + 1).await;
    assert_eq!(times(), 1, "it is said once");
    edit(stack, |text| text.replace("log: { format: json, filter: debug }\n", ""));
    soon("none waits", async || metric(stack, "fairlead_config_settings_waiting_for_restart{}").await == 0).await;
}

#[tokio::test]
async fn a_changed_file_takes_effect_under_load_without_a_failed_request() {
    let stack = stack_of(3, &config(2, LIST), 2).await;
    let load = load::run(LoadOptions { duration: Some(Duration::from_secs(8)), ..traffic(&stack) });
    let story = async {
        soon("traffic", async || stack.engines().iter().take(2).all(|engine| engine.counters().completed > 20)).await;
        settings_take_effect(&stack).await;
        names_that_would_be_no_header_are_refused(&stack).await;
        faults_change_nothing(&stack).await;
        what_waits_is_named(&stack).await;
    };
    let (report, ()) = tokio::join!(load, story);
    nothing_failed("reload", &report.unwrap());
    common_life::settle(&stack).await;

    let status = async || ask(&stack, 2).await.status;
    edit(&stack, |text| format!("{text}limits: {{ body_bytes_max: 10 }}\n"));
    soon("a smaller body", async || status().await == 413).await;
    edit(&stack, |text| text.replace("body_bytes_max: 10", "body_bytes_max: 1000000, body_budget_bytes: 1000000"));
    soon("a larger one", async || status().await == 200).await;
    common_life::settle(&stack).await;
    stack.stop().await.unwrap();
}

/// A stack of which Envoy knows only some of the engines yet.
async fn stack_of(engines: usize, config: &str, known: usize) -> Stack {
    use fairlead_lab::harness::StackBuilder;
    let builder = StackBuilder::quickstart(common_life::fairlead(config), QUICKSTART);
    let stack = builder.engines(engines, &common_life::engine()).start().await.unwrap();
    common_life::stack_knows(&stack, known).await;
    stack
}

#[tokio::test]
async fn a_request_ends_under_the_configuration_that_it_began_with() {
    let stack = stack_of(2, &config(2, LIST), 2).await;
    let mut running = open(&stack, 3_000, true).await;
    running.piece().await.unwrap();
    edit(&stack, |text| {
        let text = text.replace("list: 3", "list: 1, response_headers: false");
        format!("{text}routing: {{ algorithm: random }}\nhealth: {{ cooldown_base: 7s }}\n")
    });
    soon("in effect", async || ask(&stack, 2).await.header("routing-strategy").is_none()).await;
    assert!(rows(&stack).await.iter().any(|row| row.in_flight == 1), "it is counted on");
    assert!(running.finish().await.text().ends_with("data: [DONE]\n\n"));
    common_life::settle(&stack).await;
    stack.stop().await.unwrap();
}

/// A Fairlead by itself.
struct Alone {
    child: Child,
    admin: String,
    folder: Folder,
}

impl Alone {
    /// Starts it; the admin port is given as a flag.
    async fn start(folder: Folder, arguments: &[&str]) -> Self {
        let address = free_address().unwrap().to_string();
        let child = spawn(&folder, &[&["--listen-admin", &address], arguments].concat());
        let alone = Self { child, admin: format!("http://{address}"), folder };
        soon("the admin port", async || get(&format!("{}/healthz", alone.admin)).await.is_ok()).await;
        alone
    }

    async fn page(&self, path: &str) -> String {
        get(&format!("{}{path}", self.admin)).await.unwrap().1
    }

    async fn algorithm(&self) -> String {
        let page: Value = serde_json::from_str(&self.page("/api/config").await).unwrap();
        page["routing"]["algorithm"].as_str().unwrap().to_owned()
    }

    /// Ends it with SIGTERM.
    async fn stop(self) -> ExitStatus {
        self.child.terminate(SOON).await.unwrap()
    }
}

fn spawn(folder: &Folder, arguments: &[&str]) -> Child {
    let binary = Path::new(env!("CARGO_BIN_EXE_fairlead"));
    let socket = format!("unix:{}", folder.join("ext_proc.sock").display());
    let all = [&["serve", "--listen-ext-proc", &socket], arguments].concat();
    Child::spawn("fairlead", binary, &all, &folder.join("fairlead.log")).unwrap()
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_read_and_flags_go_before_it() {
    let folder = Folder::temporary().unwrap();
    let path = folder.join("mount");
    let write = |version: &str, text: &str| {
        fs::create_dir_all(path.join(version)).unwrap();
        fs::write(path.join(version).join("fairlead.yaml"), text).unwrap();
    };
    write("..1", "routing: { algorithm: random }\nhealth: { cooldown_base: 2s }\n");
    write("..2", "routing: { algorithm: round-robin }\nhealth: { cooldown_base: 3s }\n");
    symlink("..1", path.join("..data")).unwrap();
    symlink("..data/fairlead.yaml", path.join("fairlead.yaml")).unwrap();
    let file = path.join("fairlead.yaml");
    let arguments = ["--config", file.to_str().unwrap(), "--health-cooldown-base", "1s"];
    let alone = Alone::start(folder, &arguments).await;
    assert_eq!(alone.algorithm().await, "random");
    symlink("..2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    soon("the swapped file is read", async || alone.algorithm().await == "round-robin").await;
    assert!(alone.page("/api/config").await.contains(r#""cooldown_base":"1s""#), "a flag holds");
    assert!(alone.stop().await.success());
}

#[tokio::test]
async fn another_endpoint_file_takes_the_place_of_the_first() {
    let folder = Folder::temporary().unwrap();
    for (name, port) in [("one", 1), ("two", 2)] {
        folder.write(&format!("{name}.yaml"), &format!("- {{ address: \"127.0.0.1:{port}\" }}\n")).unwrap();
    }
    let named = |name: &str| {
        let path = folder.join(&format!("{name}.yaml"));
        folder.write("fairlead.yaml", &format!("discovery: {{ file: {{ path: \"{}\" }} }}\n", path.display())).unwrap()
    };
    let config = named("one");
    let alone = Alone::start(Folder::temporary().unwrap(), &["--config", config.to_str().unwrap()]).await;
    let has = async |text: &str| alone.page("/api/endpoints").await.contains(text);
    soon("the first", async || has("127.0.0.1:1").await).await;
    named("two");
    soon("the second", async || has("127.0.0.1:2").await && !has("127.0.0.1:1").await).await;
    named("three");
    soon("what is missing is said", async || alone.page("/readyz").await.contains("three.yaml")).await;
    assert!(has("127.0.0.1:2").await, "the last good list stays");
    folder.write("fairlead.yaml", "discovery: { static: [{ address: \"127.0.0.1:4\" }] }\n").unwrap();
    soon("no file any more", async || has("127.0.0.1:4").await && !has("127.0.0.1:2").await).await;
    assert!(alone.stop().await.success());
}

#[tokio::test]
async fn sighup_without_a_file_says_that_there_is_nothing_to_read() {
    let alone = Alone::start(Folder::temporary().unwrap(), &[]).await;
    signal(alone.child.id(), "HUP");
    soon("it says so", async || log(&alone.folder).contains("no configuration file was given")).await;
    assert!(log(&alone.folder).contains("WARN fairlead: no endpoints"), "and at the start, that it can do nothing");
    assert!(alone.stop().await.success());
}

#[tokio::test]
async fn a_second_process_fails_and_leaves_the_files_of_the_first_alone() {
    let stack = stack(QUICKSTART, &config(2, LIST), 2).await;
    let eds = stack.folder().join("eds/endpoints.yaml");
    let before = fs::read_to_string(&eds).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_fairlead"));
    let file = stack.folder().join("fairlead.yaml");
    let second = Command::new(binary).args(["serve", "--config", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    let holder = format!("belongs to another process ({})", stack.process_ids().1.unwrap());
    assert!(second.status.code() == Some(1) && said.contains(&holder), "{said}");
    // With a socket of its own, but the same file for Envoy; and with another file, but the same ports.
    let socket = stack.folder().join("other.sock").display().to_string();
    let arguments = ["serve", "--config", file.to_str().unwrap(), "--listen-ext-proc", &format!("unix:{socket}")];
    let third = Command::new(binary).args(arguments).output().unwrap();
    let said = String::from_utf8(third.stderr).unwrap();
    assert!(third.status.code() == Some(1) && said.contains("endpoints.yaml\" belongs to another process"), "{said}");
    let other = stack.folder().join("other.yaml");
    let arguments = [&arguments[..], &["--envoy-eds-file", other.to_str().unwrap()]].concat();
    let fourth = Command::new(binary).args(arguments).output().unwrap();
    let said = String::from_utf8(fourth.stderr).unwrap();
    assert!(fourth.status.code() == Some(1) && said.contains("cannot listen for admin requests"), "{said}");
    assert!(!other.exists(), "nothing is written before it is clear that it may run");
    assert_eq!(fs::read_to_string(&eds).unwrap(), before);
    assert_eq!(ask(&stack, 2).await.status, 200);
    fs::write(&eds, "resources: []\n").unwrap();
    soon("the file is repaired", async || fs::read_to_string(&eds).is_ok_and(|text| text == before)).await;
    stack.stop().await.unwrap();
}

fn pipe(path: &PathBuf) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn pipes_in_place_of_files_hold_nothing_up() {
    let folder = Folder::temporary().unwrap();
    let endpoints = folder.join("endpoints.yaml");
    pipe(&endpoints);
    let alone = Alone::start(folder, &["--discovery-file-path", endpoints.to_str().unwrap()]).await;
    soon("it is said", async || alone.page("/readyz").await.contains("is a pipe, not a file")).await;
    fs::remove_file(&endpoints).unwrap();
    fs::write(&endpoints, "- { address: 127.0.0.1:9 }\n").unwrap();
    soon("the file is taken", async || get(&format!("{}/readyz", alone.admin)).await.unwrap().0 == 200).await;
    fs::remove_file(&endpoints).unwrap();
    pipe(&endpoints);
    soon("stale", async || alone.page("/readyz").await.contains("the last good endpoints stay in use")).await;
    assert!(alone.stop().await.success());

    for (flag, more) in
        [("--listen-certificate", "--listen-tls=required"), ("--routing-session-key-file", "--log-filter=info")]
    {
        let folder = Folder::temporary().unwrap();
        let tls = folder.join("tls");
        fs::create_dir(&tls).unwrap();
        pipe(&tls.join("tls.crt"));
        let named = if flag == "--listen-certificate" { tls } else { tls.join("tls.crt") };
        let tcp =
            ["--listen-ext-proc", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0", more, flag, named.to_str().unwrap()];
        let binary = Path::new(env!("CARGO_BIN_EXE_fairlead"));
        let ended = Command::new(binary).arg("serve").args(tcp).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(1) && said.contains("is a pipe, not a file"), "{flag}: {said}");
    }
}

#[tokio::test]
async fn a_start_that_waits_for_ever_can_be_stopped() {
    let folder = Folder::temporary().unwrap();
    let kubeconfig = folder.join("kubeconfig");
    pipe(&kubeconfig);
    let alone = Alone::start(folder, &["--discovery-kubernetes-kubeconfig", kubeconfig.to_str().unwrap()]).await;
    assert!(alone.stop().await.success());
}

/// Nobody reads what it logs, so that in the end every thread that says something hangs, and with it the orderly stop.
#[tokio::test]
async fn a_second_signal_ends_it_even_if_standard_error_hangs() {
    let folder = Folder::temporary().unwrap();
    let (binary, address) = (Path::new(env!("CARGO_BIN_EXE_fairlead")), free_address().unwrap().to_string());
    let socket = format!("unix:{}", folder.join("ext_proc.sock").display());
    let arguments = ["serve", "--listen-ext-proc", &socket, "--listen-admin", &address, "--log-filter", "trace"];
    let mut process = Command::new(binary).args(arguments).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let url = format!("http://{address}/healthz");
    soon("it is up", async || get(&url).await.is_ok()).await;
    let answers = async || tokio::time::timeout(Duration::from_secs(1), get(&url)).await.is_ok();
    soon("it hangs", async || !answers().await).await;
    for _ in 0..2 {
        signal(process.id(), "TERM");
    }
    let mut ended = None;
    soon("it has ended", async || {
        ended = process.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert!(ended.unwrap().success());
}

#[tokio::test]
async fn a_second_signal_ends_it_whatever_is_under_way() {
    let mut stack = stack_of(1, &config(1, "shutdown: { delay: 1m, grace: 10m }\n"), 1).await;
    let running = open(&stack, 3_000, true).await;
    let process = stack.process_ids().1.unwrap();
    signal(process, "TERM");
    soon("not ready", async || stack.admin_get("/readyz").await.is_ok_and(|(status, _)| status == 503)).await;
    let status = stack.terminate_fairlead(SOON).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(running.finish().await.text().ends_with("data: [DONE]\n\n"));
    stack.stop().await.unwrap();
}
