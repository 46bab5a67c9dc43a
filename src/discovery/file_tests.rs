use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time;

use crate::discovery::test_support::{Folder, until};

use super::*;

/// So long that only the watch can have told of a change within a test.
const NO_POLL: Duration = Duration::from_hours(1);

struct Source {
    status: Arc<SourceStatus>,
    changes: mpsc::Receiver<Change>,
    _task: JoinSet<()>,
}

impl Source {
    fn start(path: &Path, poll: Duration) -> Self {
        let (sink, changes) = mpsc::channel(1);
        let status = Arc::<SourceStatus>::default();
        let config = FileDiscovery { path: path.to_owned(), poll };
        let mut task = JoinSet::new();
        task.spawn(run_file(config, SourceId(7), sink, Arc::clone(&status), CancellationToken::new()));
        Self { status, changes, _task: task }
    }

    async fn next_ports(&mut self) -> Vec<u16> {
        let change = time::timeout(Duration::from_secs(10), self.changes.recv()).await.unwrap();
        let Some(Change::Replace(SourceId(7), specs)) = change else { panic!("{change:?}") };
        specs.iter().map(|spec| spec.address.port()).collect()
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().fold(String::new(), |list, port| list + &format!("- address: 127.0.0.1:{port}\n"))
}

#[tokio::test]
async fn a_file_renamed_into_place_is_taken_without_polling() {
    let folder = Folder::new();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, list(&[1])).unwrap();
    let mut source = Source::start(&path, NO_POLL);
    assert_eq!(source.next_ports().await, [1]);
    fs::write(folder.path().join("new"), list(&[1, 2])).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    assert_eq!(source.next_ports().await, [1, 2]);
    until("counted", || source.status.reloads_ok() == 2).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_symbolic_link_is_taken_as_kubernetes_swaps_it() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name);
    for (version, ports) in [("..1", [1]), ("..2", [2])] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("endpoints.yaml"), list(&ports)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/endpoints.yaml", at("endpoints.yaml")).unwrap();
    let mut source = Source::start(&at("endpoints.yaml"), NO_POLL);
    assert_eq!(source.next_ports().await, [1]);
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_eq!(source.next_ports().await, [2]);
}

#[tokio::test]
async fn a_faulty_file_is_refused_and_mended_later() {
    let folder = Folder::new();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, list(&[1])).unwrap();
    let mut source = Source::start(&path, NO_POLL);
    assert_eq!(source.next_ports().await, [1]);
    fs::write(&path, list(&[1, 1])).unwrap();
    let twice = || source.status.last_error().is_some_and(|error| error.contains("given twice"));
    until("refused", twice).await;
    assert!(source.status.loaded() && source.changes.try_recv().is_err());
    fs::write(&path, list(&[3])).unwrap();
    assert_eq!(source.next_ports().await, [3]);
    until("no error left", || source.status.last_error().is_none()).await;
}

#[tokio::test]
async fn a_missing_folder_is_waited_for_by_polling() {
    let folder = Folder::new();
    let path = folder.path().join("later/endpoints.yaml");
    let mut source = Source::start(&path, Duration::from_millis(5));
    until("told", || source.status.reloads_failed() == 1).await;
    assert!(!source.status.loaded());
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, list(&[4])).unwrap();
    assert_eq!(source.next_ports().await, [4]);
}

#[tokio::test]
async fn a_removed_file_leaves_its_endpoints() {
    let folder = Folder::new();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, list(&[1])).unwrap();
    let mut source = Source::start(&path, NO_POLL);
    assert_eq!(source.next_ports().await, [1]);
    fs::remove_file(&path).unwrap();
    until("told", || source.status.last_error().is_some()).await;
    assert!(source.changes.try_recv().is_err());
}

#[tokio::test]
async fn what_is_no_file_or_too_large_is_refused_and_a_file_in_its_place_is_taken() {
    let folder = Folder::new();
    let path = folder.path().join("endpoints.yaml");
    let make_pipe = || assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    make_pipe();
    let mut source = Source::start(&path, NO_POLL);
    let status = Arc::clone(&source.status);
    let said = |text: &'static str| {
        let status = Arc::clone(&status);
        move || status.last_error().is_some_and(|error| error.contains(text))
    };
    until("a pipe is refused", said("is a pipe, not a file")).await;
    let too_large = said("has more than");
    fs::write(folder.path().join("new"), " ".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    until("the large one is refused", too_large).await;
    fs::write(&path, list(&[5])).unwrap();
    assert_eq!(source.next_ports().await, [5]);
    let piped = said("is a pipe, not a file");
    fs::remove_file(&path).unwrap();
    make_pipe();
    until("stale", piped).await;
    assert!(source.status.loaded());
    fs::remove_file(&path).unwrap();
    fs::write(&path, list(&[6])).unwrap();
    assert_eq!(source.next_ports().await, [6]);
}

#[tokio::test]
async fn a_reading_that_hangs_is_said_and_taken_when_it_ends() {
    let folder = Folder::new();
    let path = folder.path().join("endpoints.yaml");
    fs::write(&path, "text").unwrap();
    let (go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    // Stands in for a mount that does not answer: it holds the thread just so.
    let slow = move |text| gate.recv().map(|()| text).map_err(|error| error.to_string());
    let mut file = WatchedFile::start(&path, NO_POLL, 100, slow).unwrap();
    let error = file.next().await.unwrap_err();
    assert!(error.contains("has not answered"), "{error}");
    go.send(()).unwrap();
    assert_eq!(file.next().await, Ok("text".to_owned()));
}

#[tokio::test]
async fn a_file_is_read_at_once_when_that_is_asked_for() {
    let folder = Folder::new();
    let path = folder.path().join("some.yaml");
    fs::write(&path, "text").unwrap();
    let mut file = WatchedFile::start(&path, NO_POLL, 100, Ok).unwrap();
    assert_eq!(file.next().await, Ok("text".to_owned()));
    file.read_now();
    assert_eq!(time::timeout(Duration::from_secs(10), file.next()).await, Ok(Ok("text".to_owned())));
}
