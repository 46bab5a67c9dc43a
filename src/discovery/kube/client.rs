//! The connection to the API server.

use std::sync::Arc;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::util::MapResponseLayer;

use crate::config::KubernetesDiscovery;

use super::status::KubeStatus;
use super::{CONNECT_TIMEOUT, SILENCE};

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
    /// The client cannot be made, because of its certificates most likely.
    #[error("no client for the API server: {0}")]
    Client(#[from] kube::Error),
}

/// What all clients have in common; asks nothing of the API server yet.
pub(super) async fn settings(config: &KubernetesDiscovery) -> Result<kube::Config, ConnectError> {
    let mut settings = place(config).await?;
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
