use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::discovery::test_support::{Folder, until};
use crate::domain::{EndpointId, EndpointSpec};

use super::*;

struct Writer {
    reader: Reader,
    versions: watch::Sender<u64>,
    file: PathBuf,
    _task: JoinSet<()>,
}

impl Writer {
    fn start(file: PathBuf) -> Self {
        let (reader, (versions, changed)) = (Reader::default(), watch::channel(0));
        let mut task = JoinSet::new();
        let run = run_eds(reader.clone(), changed, file.clone(), "pods".to_owned(), CancellationToken::new());
        task.spawn(run);
        Self { reader, versions, file, _task: task }
    }

    fn publish(&self, version: u64, addresses: &[&str]) {
        let endpoint = |(slot, address): (u32, &&str)| {
            let spec = EndpointSpec::at(address.parse::<SocketAddr>().unwrap());
            Arc::new(Endpoint::new(EndpointId { slot, generation: 0 }, spec, Arc::default()))
        };
        self.reader.publish(Snapshot::build(version, (0..).zip(addresses).map(endpoint).collect()));
        self.versions.send_replace(version);
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }
}

#[tokio::test]
async fn an_empty_resource_is_there_before_the_first_snapshot() {
    let folder = Folder::new();
    let writer = Writer::start(folder.path().join("eds/endpoints.yaml"));
    until("written", || writer.text().contains(r#""cluster_name": "pods""#)).await;
    assert!(writer.text().contains(r#""endpoints": []"#));
}

#[tokio::test]
async fn endpoints_are_written_and_nothing_else_is_left_in_the_folder() {
    let folder = Folder::new();
    let writer = Writer::start(folder.path().join("endpoints.yaml"));
    writer.publish(1, &["127.0.0.1:8001", "[::1]:8002"]);
    until("written", || writer.text().contains("8002")).await;
    let value: Value = serde_json::from_str(&writer.text()).unwrap();
    let hosts = &value["resources"][0]["endpoints"][0]["lb_endpoints"];
    let address = &hosts[1]["endpoint"]["address"]["socket_address"];
    assert_eq!(*address, json!({ "address": "::1", "port_value": 8002 }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_restart_does_not_empty_what_envoy_reads() {
    let folder = Folder::new();
    let file = folder.path().join("endpoints.yaml");
    fs::write(&file, "before").unwrap();
    let writer = Writer::start(file);
    tokio::task::yield_now().await;
    writer.publish(0, &[]);
    tokio::task::yield_now().await;
    assert_eq!(writer.text(), "before");
    writer.publish(1, &["127.0.0.1:1"]);
    until("written", || writer.text().contains("127.0.0.1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_tried_again() {
    let folder = Folder::new();
    let blocked = folder.path().join("eds");
    fs::write(&blocked, "not a folder").unwrap();
    let writer = Writer::start(blocked.join("endpoints.yaml"));
    writer.publish(1, &["127.0.0.1:1"]);
    time::sleep(RETRY / 2).await;
    fs::remove_file(&blocked).unwrap();
    time::sleep(RETRY * 2).await;
    until("written", || writer.text().contains("127.0.0.1")).await;
}

#[tokio::test]
async fn an_unchanged_picture_is_not_written_again() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = Folder::new();
    let writer = Writer::start(folder.path().join("endpoints.yaml"));
    writer.publish(1, &["127.0.0.1:1"]);
    until("written", || writer.text().contains("127.0.0.1")).await;
    let inode = || fs::metadata(&writer.file).unwrap().ino();
    let before = inode();
    writer.publish(2, &["127.0.0.1:1"]);
    tokio::task::yield_now().await;
    writer.publish(3, &["127.0.0.1:2"]);
    until("written", || writer.text().contains("\"port_value\": 2")).await;
    let after = inode();
    assert_ne!(before, after);
    writer.publish(4, &["127.0.0.1:2"]);
    tokio::task::yield_now().await;
    assert_eq!(inode(), after);
}

#[tokio::test]
async fn a_file_that_something_else_changed_or_removed_is_written_again() {
    let folder = Folder::new();
    let writer = Writer::start(folder.path().join("endpoints.yaml"));
    writer.publish(1, &["127.0.0.1:1"]);
    until("written", || writer.text().contains("127.0.0.1")).await;
    let ours = writer.text();
    fs::write(&writer.file, "{}").unwrap();
    until("overwritten and repaired", || writer.text() == ours).await;
    fs::remove_file(&writer.file).unwrap();
    until("removed and repaired", || writer.text() == ours).await;
    writer.publish(2, &["127.0.0.1:2"]);
    until("and it follows the endpoints", || writer.text().contains("\"port_value\": 2")).await;
}
