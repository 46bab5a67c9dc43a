//! One GET, for admin pages.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Status and text of `GET url`, within five seconds.
///
/// # Errors
/// No answer, or one that is not text.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri = url.parse().with_context(|| format!("not a URL: '{url}'"))?;
    let exchange = async {
        let answer = client.get(uri).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        anyhow::Ok((status, String::from_utf8(body.to_vec())?))
    };
    tokio::time::timeout(TIMEOUT, exchange).await.with_context(|| format!("no answer from '{url}'"))?
}
