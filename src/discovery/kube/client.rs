//! The connection to the API server.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower::util::MapResponseLayer;

use crate::config::KubernetesDiscovery;

use super::status::KubeStatus;
use super::{CONNECT_TIMEOUT, SILENCE};

/// How long it may take to find out where the API server is.
const PLACE_MAX: Duration = Duration::from_secs(30);

/// Why there is no connection to speak of.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("\"{0}\" is not the URL of an API server")]
    Server(String),
    /// The kubeconfig file cannot be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Nothing says where the API server is.
    #[error("no API server is known: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// Finding that out does not end.
    #[error("the kubeconfig file, or what it names, could not be read within {0:?}")]
    TimedOut(Duration),
    /// Finding that out failed badly.
    #[error("the kubeconfig file could not be read: {0}")]
    Failed(String),
    /// The client cannot be made, because of its certificates most likely.
    #[error("no client for the API server: {0}")]
    Client(#[from] kube::Error),
}

/// What all clients have in common; asks nothing of the API server yet.
pub(super) async fn settings(config: &KubernetesDiscovery) -> Result<kube::Config, ConnectError> {
    // It reads files, and may run a program for credentials: on a thread that is left behind should it not come back.
    let (owned, runtime) = (config.clone(), Handle::current());
    let finding = spawn_blocking(move || runtime.block_on(place(&owned)));
    let found = timeout(PLACE_MAX, finding).await.map_err(|_| ConnectError::TimedOut(PLACE_MAX))?;
    let mut settings = found.map_err(|error| ConnectError::Failed(error.to_string()))??;
    settings.connect_timeout = Some(CONNECT_TIMEOUT);
    // Without it, a server that accepts a request and never answers is waited for without end.
    settings.read_timeout = Some(config.watch_timeout + SILENCE);
    settings.reset_reader_on_write = true;
    // Retrying is the watches' affair: below them nobody would see that anything is wrong.
    settings.default_retry = false;
    Ok(settings)
}

/// A client for one watch. It tells `status` of each good answer: a watch that goes on without news says nothing else.
pub(super) fn client(settings: kube::Config, watch: usize, status: &Arc<KubeStatus>) -> Result<Client, ConnectError> {
    let status = Arc::clone(status);
    let heard = MapResponseLayer::new(move |response: http::Response<_>| {
        if response.status().is_success() {
            status.heard(watch);
        }
        response
    });
    Ok(ClientBuilder::try_from(settings)?.with_layer(&heard).build())
}

/// Where the API server is, and who we are to it.
async fn place(config: &KubernetesDiscovery) -> Result<kube::Config, ConnectError> {
    if let Some(server) = &config.server {
        let url = server.parse().map_err(|_| ConnectError::Server(server.clone()))?;
        return Ok(kube::Config::new(url));
    }
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &config.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(path)?;
        return Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?);
    }
    if config.context.is_some() {
        return Ok(kube::Config::from_kubeconfig(&options).await?);
    }
    Ok(kube::Config::infer().await?)
}
