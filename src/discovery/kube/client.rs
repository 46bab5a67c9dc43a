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

/// A client, and the namespace that is ours. Asks nothing of the API server yet.
pub(super) async fn connect(config: &KubernetesDiscovery, status: &Arc<KubeStatus>) -> Result<Client, ConnectError> {
    let mut settings = settings(config).await?;
    settings.connect_timeout = Some(CONNECT_TIMEOUT);
    // Without it, a server that accepts a request and never answers is waited for without end.
    settings.read_timeout = Some(config.watch_timeout + SILENCE);
    settings.reset_reader_on_write = true;
    // Retrying is the watches' affair: below them nobody would see that anything is wrong.
    settings.default_retry = false;
    let status = Arc::clone(status);
    let heard = MapResponseLayer::new(move |response: http::Response<_>| {
        if response.status().is_success() {
            status.heard();
        }
        response
    });
    Ok(ClientBuilder::try_from(settings)?.with_layer(&heard).build())
}

pub(super) async fn settings(config: &KubernetesDiscovery) -> Result<kube::Config, ConnectError> {
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
