//! How a benchmark's Envoy reaches the `ext_proc` service.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::ensure;

/// Switches the `ext_proc` filter off for the route.
const DISABLED: &str = "- match: { prefix: \"/\" }
                typed_per_filter_config: { envoy.filters.http.ext_proc: { \"@type\": \
                        type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute, disabled: true } }";
/// Any certificate will do: gateways that speak TLS to a picker do not look at it either.
const TLS: &str = "- name: ext_proc
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: { alpn_protocols: [h2] }
";

/// A way from Envoy to the service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Envoy does not ask.
    Nobody,
    /// A unix socket of this name in the run folder.
    Unix(&'static str),
    /// Plaintext.
    Tcp(SocketAddr),
    /// TLS, whatever the certificate.
    Tls(SocketAddr),
}

impl Way {
    /// Envoy's configuration, already filled in for the run folder, with this way in it.
    ///
    /// # Errors
    /// The configuration lacks what would have to be replaced.
    pub(crate) fn fill(self, text: &str, run: &Path) -> anyhow::Result<String> {
        let pipe = format!("pipe: {{ path: {}/ext_proc.sock }}", run.display());
        let port = |address: SocketAddr| {
            format!("socket_address: {{ address: {}, port_value: {} }}", address.ip(), address.port())
        };
        let (from, to) = match self {
            Self::Nobody => ("- match: { prefix: \"/\" }", DISABLED.to_owned()),
            Self::Unix(socket) => ("ext_proc.sock", socket.to_owned()),
            Self::Tcp(address) | Self::Tls(address) => (pipe.as_str(), port(address)),
        };
        let mut filled = replace(text, from, &to)?;
        if matches!(self, Self::Tls(_)) {
            filled = replace(&filled, "- name: ext_proc\n", TLS)?;
        }
        Ok(filled)
    }
}

fn replace(text: &str, from: &str, to: &str) -> anyhow::Result<String> {
    ensure!(text.contains(from), "the Envoy configuration does not contain '{from}'");
    Ok(text.replace(from, to))
}
