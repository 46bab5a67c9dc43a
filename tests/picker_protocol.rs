//! The endpoint-picker protocol as a table of cases, each put to a picker from outside.
//!
//! Ours is started with nothing but flags and endpoints at which nobody listens. To put the same cases to another one:
//!
//! `FAIRLEAD_PICKER=https://10.0.0.7:9002 FAIRLEAD_PICKER_ENDPOINTS=10.0.1.1:8000,10.0.1.2:8000 cargo test --test
//! picker_protocol -- --nocapture`

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_picker;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common_picker::client::connect;
use common_picker::run::Picker;
use common_picker::{answers, cases};
use fairlead_lab::harness::{Child, free_address};

/// Longest wait until ours is ready.
const START: Duration = Duration::from_secs(20);
/// Longest time for one case.
const CASE: Duration = Duration::from_secs(30);
/// Two ports of one address, another address, and one of IPv6.
const ENDPOINTS: [&str; 4] = ["127.0.0.1:41001", "127.0.0.1:41002", "127.0.0.2:41001", "[fd00::7]:8000"];

/// Whom a case can be put to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// Any picker of the protocol.
    Any,
    /// Ours: where the protocol leaves room, or our limits are met.
    Ours,
}

macro_rules! table {
    ($picker:expr, $($to:ident $module:ident :: $case:ident),* $(,)?) => {{
        let mut table = Table::default();
        $(
            let name = stringify!($case).replace('_', " ");
            if $picker.admin.is_some() || To::$to == To::Any {
                let done = tokio::time::timeout(CASE, Box::pin($module::$case($picker))).await;
                table.note(&name, done.unwrap_or_else(|_| Err(format!("not done within {CASE:?}"))));
            } else {
                table.skip(&name);
            }
        )*
        table
    }};
}

/// What came of the cases.
#[derive(Default)]
struct Table {
    text: String,
    failed: usize,
}

impl Table {
    fn note(&mut self, name: &str, done: Result<(), String>) {
        self.failed += usize::from(done.is_err());
        let outcome = done.map_or_else(|fault| format!("FAILED: {fault}"), |()| "holds".to_owned());
        writeln!(self.text, "| {name} | {outcome} |").unwrap();
    }

    fn skip(&mut self, name: &str) {
        writeln!(self.text, "| {name} | not asked |").unwrap();
    }
}

async fn all(picker: &Picker) -> Table {
    table!(picker,
        Any cases::every_mode_sends_a_chat_to_one_endpoint,
        Any cases::a_get_without_body_is_sent_in_every_mode,
        Any cases::duplex_bodies_come_back_byte_for_byte,
        Any cases::chat_bodies_of_every_split_come_back,
        Any cases::trailers_end_a_duplex_body,
        Any cases::a_second_end_of_the_body_is_ignored,
        Any cases::header_values_in_the_older_field_are_read,
        Any cases::a_gateway_that_does_not_tell_its_modes_is_served,
        Any cases::a_client_cannot_name_the_destination,
        Ours cases::control_headers_of_a_client_are_removed,
        Ours cases::an_upgrade_is_answered_at_its_headers,
        Any cases::the_choice_stays_inside_the_subset,
        Any cases::subsets_name_ipv6_too,
        Any cases::a_subset_without_ports_means_every_port,
        Any cases::a_subset_may_come_with_the_body,
        Any cases::a_subset_of_strangers_or_of_nobody_is_a_503,
        Any cases::faulty_bodies_are_a_400,
        Ours cases::a_body_above_the_limit_is_a_413,
        Any answers::answers_pass_piece_by_piece_and_unchanged,
        Any answers::response_trailers_and_other_statuses_are_taken,
        Any answers::whoever_served_is_taken_note_of,
        Any answers::an_observed_exchange_is_never_answered,
        Any answers::streams_that_vanish_leave_nothing_behind,
        Any answers::a_thousand_streams_are_open_on_one_connection,
        Ours answers::health_is_answered_by_every_name_that_is_asked_for,
    )
}

fn shown(what: &str, table: &Table) {
    eprintln!("{what}\n\n| case | outcome |\n|---|---|\n{}", table.text);
    assert_eq!(table.failed, 0, "\n{}", table.text);
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("fairlead-picker-{}", fastrand::u64(..)));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Ours, with the flags of the reference picker.
struct Ours {
    picker: Picker,
    health: SocketAddr,
    _child: Child,
    _folder: Folder,
}

impl Ours {
    async fn start(endpoints: &[&str], url: impl Fn(SocketAddr) -> String, more: &[&str]) -> Self {
        let folder = Folder::new();
        let file = folder.0.join("endpoints.yaml");
        let lines: Vec<_> = endpoints.iter().map(|address| format!("- address: \"{address}\"\n")).collect();
        std::fs::write(&file, if lines.is_empty() { "[]\n".to_owned() } else { lines.concat() }).unwrap();
        let [ext_proc, admin, health] = [(); 3].map(|()| free_address().unwrap());
        let texts = [ext_proc, admin, health].map(|address| address.to_string());
        let mut arguments =
            vec!["--listen-ext-proc", &texts[0], "--listen-admin", &texts[1], "--listen-health", &texts[2]];
        arguments.extend(["--v", "4", "--zap-encoder", "json", "--listen-threads", "1"]);
        arguments.extend(["--discovery-file-path", file.to_str().unwrap()]);
        arguments.extend(more);
        let binary = Path::new(env!("CARGO_BIN_EXE_fairlead"));
        let mut child = Child::spawn("picker", binary, &arguments, &folder.0.join("log")).unwrap();
        child.wait_ready(&format!("http://{admin}/readyz"), START).await.unwrap();
        let endpoints = endpoints.iter().map(|address| address.parse().unwrap()).collect();
        let channel = connect(&url(ext_proc)).await.unwrap();
        let picker = Picker { channel, endpoints, admin: Some(format!("http://{admin}")) };
        Self { picker, health, _child: child, _folder: folder }
    }
}

#[expect(clippy::disallowed_methods, reason = "which picker is asked is no setting of the product")]
fn another() -> Option<(String, Vec<SocketAddr>)> {
    let url = std::env::var("FAIRLEAD_PICKER").ok()?;
    let endpoints = std::env::var("FAIRLEAD_PICKER_ENDPOINTS").unwrap_or_default();
    Some((url, endpoints.split(',').map(|address| address.parse().unwrap()).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_hold_in_plaintext() {
    if let Some((url, endpoints)) = another() {
        let picker = Picker { channel: connect(&url).await.unwrap(), endpoints, admin: None };
        return shown(&url, &all(&picker).await);
    }
    let ours = Ours::start(&ENDPOINTS, |address| format!("http://{address}"), &["--secure-serving=false"]).await;
    shown("plaintext", &all(&ours.picker).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_hold_over_tls_with_a_self_signed_certificate() {
    if another().is_none() {
        let ours = Ours::start(&ENDPOINTS, |address| format!("https://{address}"), &[]).await;
        shown("TLS", &all(&ours.picker).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_endpoints_requests_are_refused() {
    let ours = Ours::start(&[], |address| format!("https://{address}"), &[]).await;
    cases::without_endpoints_everything_is_a_503(&ours.picker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_takes_tls_and_plaintext_where_both_are_accepted() {
    let ours = Ours::start(&ENDPOINTS, |address| format!("https://{address}"), &["--listen-tls", "accepted"]).await;
    answers::health_is_answered_by_every_name_that_is_asked_for(&ours.picker).await.unwrap();
    let ours = Ours::start(&ENDPOINTS, |address| format!("http://{address}"), &["--listen-tls", "accepted"]).await;
    answers::health_is_answered_by_every_name_that_is_asked_for(&ours.picker).await.unwrap();
    let channel = connect(&format!("http://{}", ours.health)).await.unwrap();
    let health = Picker { channel, endpoints: Vec::new(), admin: None };
    answers::health_is_answered_by_every_name_that_is_asked_for(&health).await.unwrap();
}
